//! Goal: deny by default, deny beats allow, special-purpose ranges open only to rules that name a part of them.
//! Method: tables of verdicts, and random policies held against an oracle that shares no code with the real thing.

use std::net::{Ipv4Addr, Ipv6Addr};

use proptest::prelude::*;

use super::*;

fn policy(allow: &[&str], deny: &[&str]) -> Policy {
    let owned = |list: &[&str]| list.iter().map(|rule| rule.to_string()).collect::<Vec<_>>();
    Policy::parse(&owned(allow), &owned(deny)).unwrap()
}

fn verdict(policy: &Policy, host: Option<&str>, addr: &str) -> Option<Reason> {
    policy.check(host, addr.parse().unwrap()).err().map(|denied| denied.reason)
}

#[test]
fn the_default_allows_nothing() {
    let policy = Policy::default();
    assert!(policy.allows_nothing());
    assert_eq!(verdict(&policy, None, "192.31.196.1:443"), Some(Reason::NotAllowed));
    assert_eq!(verdict(&policy, Some("example.com"), "8.8.8.8:443"), Some(Reason::NotAllowed));
    assert_eq!(policy.check_name_possible("example.com", 443), refuse(Reason::NotAllowed));
}

#[test]
fn a_general_rule_opens_no_special_range() {
    let wide = policy(&["0.0.0.0/0", "::/0", "*"], &[]);
    assert_eq!(verdict(&wide, None, "8.8.8.8:53"), None);
    assert_eq!(verdict(&wide, None, "[2606:4700::1111]:53"), None);
    for (addr, special) in [
        ("127.0.0.1:22", Special::Loopback),
        ("[::1]:22", Special::Loopback),
        ("[::ffff:127.0.0.1]:22", Special::Loopback),
        ("[64:ff9b::127.0.0.1]:22", Special::Loopback),
        ("[2002:7f00:1::1]:22", Special::Loopback),
        ("[::7f00:1]:22", Special::Loopback),
        ("0.0.0.0:22", Special::Unspecified),
        ("[::]:22", Special::Unspecified),
        ("10.0.0.1:22", Special::Private),
        ("[64:ff9b::a00:1]:22", Special::Private),
        ("[fd12::1]:22", Special::Private),
        ("100.64.0.1:22", Special::Shared),
        ("169.254.1.1:80", Special::LinkLocal),
        ("169.254.169.254:80", Special::Metadata),
        ("[::ffff:169.254.169.254]:80", Special::Metadata),
        ("[fd00:ec2::254]:80", Special::Metadata),
        ("[fe80::1]:80", Special::LinkLocal),
        ("198.18.0.1:80", Special::Benchmarking),
        ("224.0.0.1:80", Special::Multicast),
        ("255.255.255.255:80", Special::Broadcast),
        ("[2001:db8::1]:80", Special::Documentation),
    ] {
        let wanted = Some(Reason::SpecialPurpose(special));
        assert_eq!(verdict(&wide, None, addr), wanted, "{addr}");
        assert_eq!(verdict(&wide, Some("rebound.example.com"), addr), wanted, "{addr} behind a name");
    }
}

#[test]
fn a_rule_inside_a_special_range_opens_its_part() {
    let inside = policy(&["10.1.0.0/16:80", "198.18.0.0/15", "::1", "0.0.0.0/0"], &[]);
    assert_eq!(verdict(&inside, None, "10.1.2.3:80"), None);
    assert_eq!(verdict(&inside, None, "[::ffff:10.1.2.3]:80"), None);
    assert_eq!(verdict(&inside, None, "[64:ff9b::a01:203]:80"), None);
    let private = Some(Reason::SpecialPurpose(Special::Private));
    assert_eq!(verdict(&inside, None, "10.1.2.3:81"), private, "another port");
    assert_eq!(verdict(&inside, None, "10.2.0.1:80"), private, "another part");
    assert_eq!(verdict(&inside, None, "198.19.255.255:1"), None, "the range itself lies inside itself");
    assert_eq!(verdict(&inside, None, "[::1]:8080"), None);
    assert_eq!(verdict(&inside, None, "127.0.0.1:8080"), Some(Reason::SpecialPurpose(Special::Loopback)));
}

#[test]
fn metadata_opens_only_to_its_own_address() {
    let metadata = Some(Reason::SpecialPurpose(Special::Metadata));
    let link_local = policy(&["169.254.0.0/16", "fc00::/7"], &[]);
    assert_eq!(verdict(&link_local, None, "169.254.1.1:80"), None);
    assert_eq!(verdict(&link_local, None, "169.254.169.254:80"), metadata);
    assert_eq!(verdict(&link_local, None, "[fd00:ec2::254]:80"), metadata);
    assert_eq!(verdict(&policy(&["169.254.169.254"], &[]), None, "169.254.169.254:80"), None);
}

#[test]
fn deny_beats_allow() {
    let policy = policy(
        &["*", "0.0.0.0/0", "10.0.0.0/8"],
        &["10.9.0.0/16", "*.evil.example:25", "bad.example", "1.1.1.1:53", "64:ff9b::/96"],
    );
    assert_eq!(verdict(&policy, None, "10.8.0.1:1"), None);
    assert_eq!(verdict(&policy, None, "10.9.0.1:1"), Some(Reason::DenyAddress));
    assert_eq!(verdict(&policy, None, "[2002:a09:1::]:1"), Some(Reason::DenyAddress), "inside 6to4");
    assert_eq!(verdict(&policy, None, "[64:ff9b::8.8.8.8]:1"), Some(Reason::DenyAddress), "the form itself");
    assert_eq!(verdict(&policy, Some("bad.example"), "8.8.8.8:1"), Some(Reason::DenyName));
    assert_eq!(verdict(&policy, Some("BAD.example."), "8.8.8.8:1"), Some(Reason::DenyName));
    assert_eq!(verdict(&policy, Some("a.b.evil.example"), "8.8.8.8:25"), Some(Reason::DenyName));
    assert_eq!(verdict(&policy, Some("a.b.evil.example"), "8.8.8.8:26"), None);
    assert_eq!(verdict(&policy, Some("evil.example"), "8.8.8.8:25"), None, "below, not itself");
    assert_eq!(verdict(&policy, Some("good.example"), "1.1.1.1:53"), Some(Reason::DenyAddress));
    assert_eq!(verdict(&policy, Some("good.example"), "1.1.1.1:54"), None);
}

#[test]
fn a_name_rule_permits_the_name_and_not_the_address() {
    let policy = policy(&["api.example.com:443", "*.cdn.example:80,443"], &[]);
    assert_eq!(verdict(&policy, Some("api.example.com"), "8.8.8.8:443"), None);
    assert_eq!(verdict(&policy, Some("api.example.com"), "8.8.8.8:80"), Some(Reason::NotAllowed));
    assert_eq!(verdict(&policy, Some("www.example.com"), "8.8.8.8:443"), Some(Reason::NotAllowed));
    assert_eq!(verdict(&policy, Some("x.cdn.example"), "8.8.8.8:80"), None);
    assert_eq!(verdict(&policy, Some("cdn.example"), "8.8.8.8:80"), Some(Reason::NotAllowed));
    assert_eq!(verdict(&policy, None, "8.8.8.8:443"), Some(Reason::NotAllowed));
    assert_eq!(verdict(&policy, Some("8.8.8.8"), "8.8.8.8:443"), Some(Reason::NotAllowed));
}

#[test]
fn any_name_is_not_any_address() {
    let policy = policy(&["*:443"], &[]);
    assert_eq!(verdict(&policy, Some("example.com"), "8.8.8.8:443"), None);
    assert_eq!(verdict(&policy, Some("8.8.8.8"), "8.8.8.8:443"), Some(Reason::NotAllowed));
    assert_eq!(verdict(&policy, Some("0x08080808"), "8.8.8.8:443"), Some(Reason::InvalidHost));
}

#[test]
fn refused_before_resolution_where_no_answer_could_help() {
    let names = policy(&["*.example.com:443"], &["secret.example.com"]);
    assert_eq!(names.check_name_possible("www.example.com", 443), Ok(()));
    assert_eq!(names.check_name_possible("www.example.com", 80), refuse(Reason::NotAllowed));
    assert_eq!(names.check_name_possible("example.org", 443), refuse(Reason::NotAllowed));
    assert_eq!(names.check_name_possible("secret.example.com", 443), refuse(Reason::DenyName));
    assert_eq!(names.check_name_possible("www.example.com", 0), refuse(Reason::PortZero));
    assert_eq!(names.check_name_possible("a b", 443), refuse(Reason::InvalidHost));
    let nets = policy(&["8.8.0.0/16:443"], &[]);
    assert_eq!(nets.check_name_possible("example.org", 443), Ok(()), "it may resolve into the network");
    assert_eq!(nets.check_name_possible("example.org", 80), refuse(Reason::NotAllowed));
    assert_eq!(nets.check_name_possible("8.8.8.8", 443), Ok(()));
    assert_eq!(nets.check_name_possible("[::ffff:8.8.8.8]", 443), Ok(()));
    assert_eq!(nets.check_name_possible("8.9.8.8", 443), refuse(Reason::NotAllowed));
}

#[test]
fn errors_name_the_flag_the_value_and_the_forms() {
    let error = Policy::parse(&[], &["10.1.2.3/16".into()]).unwrap_err().to_string();
    assert!(error.starts_with("--deny \"10.1.2.3/16\": ") && error.contains("write 10.1.0.0/16"), "{error}");
    assert!(error.contains("CIDR[:PORTS]") && error.contains("NAME[:PORTS]"));
    let many = vec!["*".to_string(); RULES_MAX];
    assert!(Policy::parse(&many, &[]).is_ok());
    assert_eq!(Policy::parse(&many, &["*".into()]), Err(PolicyError::TooMany { seen: RULES_MAX + 1 }));
}

#[test]
fn details_fit_a_structured_field_string() {
    for reason in [
        Reason::DenyName,
        Reason::DenyAddress,
        Reason::NotAllowed,
        Reason::SpecialPurpose(Special::Shared),
        Reason::InvalidHost,
        Reason::PortZero,
    ] {
        let text = Denied { reason }.to_string();
        assert!(text.bytes().all(|b| (0x20..0x7f).contains(&b) && b != b'"' && b != b'\\'), "{text}");
    }
}

/// std's own idea of a special IPv4 address, where it has one in stable Rust.
fn surely_special(ip: Ipv4Addr) -> bool {
    let [a, b, ..] = ip.octets();
    ip.is_loopback()
        || ip.is_private()
        || ip.is_link_local()
        || ip.is_multicast()
        || ip.is_broadcast()
        || ip.is_documentation()
        || ip.is_unspecified()
        || a == 0
        || a >= 240
        || (a == 100 && (64..128).contains(&b))
        || (a == 198 && (18..20).contains(&b))
}

fn any_v4() -> impl Strategy<Value = Ipv4Addr> {
    let nasty = prop::sample::select(vec![0u32, 10, 100, 127, 169, 172, 192, 198, 203, 224, 255]);
    prop_oneof![
        any::<u32>().prop_map(Ipv4Addr::from_bits),
        (nasty, any::<u32>()).prop_map(|(top, low)| Ipv4Addr::from_bits(top << 24 | low >> 8)),
        prop::sample::select(vec![0xa9fe_a9feu32, 0x6464_64c8, 0x7f00_0001]).prop_map(Ipv4Addr::from_bits),
    ]
}

proptest! {
    #[test]
    fn no_disguise_changes_the_verdict(ip in any_v4(), port in 1u16.., tail in any::<u64>()) {
        let wide = policy(&["0.0.0.0/0", "::/0", "*"], &[]);
        let plain = wide.check(None, SocketAddr::new(ip.into(), port));
        if surely_special(ip) {
            prop_assert!(plain.is_err());
        }
        let bits = u128::from(ip.to_bits());
        let disguises = [
            0xffff << 32 | bits,
            0x0064_ff9b << 96 | bits,
            0xffff << 48 | bits,
            0x2002 << 112 | bits << 80 | u128::from(tail),
        ];
        for disguise in disguises.map(Ipv6Addr::from_bits) {
            let seen = wide.check(None, SocketAddr::new(disguise.into(), port));
            prop_assert_eq!(seen, plain, "{}", disguise);
        }
    }

    #[test]
    fn verdicts_agree_with_a_plain_reading(
        nets in prop::collection::vec((any_v4(), 0u8..=32, any::<bool>(), 0u16..4), 0..6),
        ip in any_v4(),
        near in 0usize..6,
        port in 1u16..4,
    ) {
        // Half of the probes sit next to a rule's address, so that matches are not rare.
        let ip = nets.get(near).map_or(ip, |(base, ..)| Ipv4Addr::from_bits(base.to_bits() ^ u32::from(port & 1)));
        let mask = |len: u8| if len == 0 { 0 } else { u32::MAX << (32 - len) };
        let rule = |&(base, len, _, on): &(Ipv4Addr, u8, bool, u16)| {
            let network = Ipv4Addr::from_bits(base.to_bits() & mask(len));
            if on == 0 { format!("{network}/{len}") } else { format!("{network}/{len}:{on}") }
        };
        let (allow, deny): (Vec<_>, Vec<_>) = nets.iter().partition(|net| net.2);
        let policy = Policy::parse(
            &allow.iter().copied().map(rule).collect::<Vec<_>>(),
            &deny.iter().copied().map(rule).collect::<Vec<_>>(),
        ).unwrap();
        let hits = |&(base, len, _, on): &(Ipv4Addr, u8, bool, u16)| {
            (base.to_bits() ^ ip.to_bits()) & mask(len) == 0 && (on == 0 || on == port)
        };
        let reason = policy.check(None, SocketAddr::new(ip.into(), port)).err().map(|denied| denied.reason);
        if deny.iter().copied().any(hits) {
            prop_assert_eq!(reason, Some(Reason::DenyAddress));
        } else if !allow.iter().copied().any(hits) {
            prop_assert_eq!(reason, Some(Reason::NotAllowed));
        } else if let Some((range, special)) = special::range_of(ip.into()) {
            let inside = |net: &(Ipv4Addr, u8, bool, u16)| {
                Net::covering(net.0.into(), net.1).is_some_and(|net| net.is_inside(&range))
            };
            let opened = allow.iter().any(|net| hits(net) && inside(net));
            let wanted = (!opened).then_some(Reason::SpecialPurpose(special));
            prop_assert_eq!(reason, wanted);
        } else {
            prop_assert!(!surely_special(ip));
            prop_assert_eq!(reason, None);
        }
    }
}
