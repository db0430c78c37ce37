//! A home directory whose repository is on a server behind a proxy that sees and changes what goes through.
#![expect(unreachable_pub, reason = "it is a module of each test program")]

use crate::away::Away;
use crate::proxy::{Action, Proxy};
use crate::servers;
use crate::support::home::Home;
use std::ops::Deref;

pub struct Behind {
    pub away: Away,
    pub proxy: Proxy,
}

impl Behind {
    /// With documents that may be backed up. `options` are more of the repository's URL.
    pub fn new(options: &str) -> Option<Self> {
        let server = servers::moto()?;
        let proxy = Proxy::new(server.port, |_| Action::Pass);
        let url = format!("{}&{options}", server.url_at("repository", proxy.port));
        Some(Self { away: Away { home: Home::documents(), server, url }, proxy })
    }
}

impl Deref for Behind {
    type Target = Away;

    fn deref(&self) -> &Away {
        &self.away
    }
}
