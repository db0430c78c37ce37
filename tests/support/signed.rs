//! Requests to S3 servers as their users sign them, for what the program itself never asks.

use super::SECRET;
use object_store::aws::{AwsAuthorizer, AwsCredential};
use object_store::client::HttpRequest;
use std::io::{Read, Write};
use std::net::TcpStream;

/// A request to the server at a port of this machine, signed as the user with this key; its status and its body.
pub fn signed_request(port: u16, key_id: &str, request: (&str, &str), headers: &[(&str, &str)], body: &str) -> (u16, String) {
    let (method, path) = request;
    let mut signed = HttpRequest::new(body.to_owned().into());
    *signed.method_mut() = method.parse().unwrap();
    *signed.uri_mut() = format!("http://127.0.0.1:{port}{path}").parse().unwrap();
    for (name, value) in headers {
        signed.headers_mut().insert(http::HeaderName::try_from(*name).unwrap(), value.parse().unwrap());
    }
    let credential = AwsCredential { key_id: key_id.into(), secret_key: SECRET.into(), token: None };
    AwsAuthorizer::new(&credential, "s3", "us-east-1").try_authorize(&mut signed, None).unwrap();
    let mut text = format!("{method} {path} HTTP/1.1\r\n");
    for (name, value) in signed.headers() {
        text += &format!("{name}: {}\r\n", value.to_str().unwrap());
    }
    if !signed.headers().contains_key("host") {
        text += &format!("host: 127.0.0.1:{port}\r\n");
    }
    text += &format!("content-length: {}\r\nconnection: close\r\n\r\n{body}", body.len());
    let mut stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.write_all(text.as_bytes()).unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let status = answer.split_whitespace().nth(1).unwrap().parse().unwrap();
    (status, answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default())
}
