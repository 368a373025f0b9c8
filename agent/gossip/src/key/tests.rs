use super::*;

#[test]
fn a_key_survives_its_text() {
    let key = ClusterKey::generate().expect("randomness");
    let text = key.to_string();
    assert_eq!(ClusterKey::parse(&text), Ok(key.clone()));
    assert_eq!(ClusterKey::parse(&format!("\n  {text} \r\n\n")), Ok(key));
}

#[test]
fn two_keys_differ() {
    assert_ne!(ClusterKey::generate(), ClusterKey::generate());
}

#[test]
fn debug_shows_nothing_of_the_secret() {
    let key = ClusterKey([0x41; KEY_BYTES]);
    assert_eq!(format!("{key:?}"), "ClusterKey(..)");
}

#[test]
fn what_is_wrong_is_said() {
    let of = |bytes: usize| BASE64_STANDARD.encode(vec![7; bytes]);
    let good = of(KEY_BYTES);
    let unpadded = good.trim_end_matches('=');
    for (text, error) in [
        ("", KeyError::Empty),
        (" \n\t\n", KeyError::Empty),
        (&format!("{good}\n{good}\n"), KeyError::Lines { lines: 2 }),
        ("not base64!", KeyError::NotBase64),
        (unpadded, KeyError::NotBase64),
        (&of(KEY_BYTES - 1), KeyError::TooShort { bytes: KEY_BYTES - 1 }),
        (&of(KEY_BYTES + 1), KeyError::TooLong { bytes: KEY_BYTES + 1 }),
    ] {
        assert_eq!(ClusterKey::parse(text), Err(error), "{text:?}");
    }
}
