//! Which metadata of two nodes differ.

use crate::format::tree::Node;

/// The fields in which the metadata of two nodes differ, in the order of the format; times to the nanosecond.
///
/// Left out is what no restore can bring back (change, creation, and access times, the numbers of device and
/// inode) and where the content lies.
#[must_use]
pub fn differences(left: &Node, right: &Node) -> Vec<&'static str> {
    let fields = [
        ("kind", left.kind != right.kind),
        ("mode", left.mode != right.mode),
        ("owner", left.uid != right.uid || left.user != right.user),
        ("group", left.gid != right.gid || left.group != right.group),
        ("mtime", left.mtime != right.mtime),
        ("size", left.size != right.size),
        ("holes", left.holes != right.holes),
        ("target", left.target != right.target),
        ("device", left.device != right.device),
        ("links", left.link.is_some() != right.link.is_some()),
        ("xattrs", left.xattrs != right.xattrs),
        ("flags", left.flags != right.flags),
    ];
    fields.into_iter().filter_map(|(name, differs)| differs.then_some(name)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::tree::{NodeKind, Time};

    #[test]
    fn a_nanosecond_is_a_difference_and_another_inode_is_none() {
        let left = Node::new(b"a".to_vec(), NodeKind::File);
        let mut right = left.clone();
        right.ctime = Some(Time { secs: 1, nanos: 0 });
        assert!(differences(&left, &right).is_empty());
        right.mtime.nanos = 1;
        right.link = Some((1, 2));
        right.mode = 0o644;
        assert_eq!(differences(&left, &right), ["mode", "mtime", "links"]);
    }
}
