use proptest::prelude::*;

use super::*;

const PURPOSE: &[u8] = b"toolgate test v1";

fn sealer(keys: &[u8]) -> Sealer {
    let secrets: Vec<_> = keys.iter().map(|&key| [key; 32]).collect();
    Sealer::with_secrets(secrets.iter())
}

#[test]
fn opens_what_it_sealed() {
    let sealer = sealer(&[1]);

    for plain in [&b""[..], b"x", &[0; 1000]] {
        let token = sealer.seal(PURPOSE, plain);
        assert!(token.bytes().all(|byte| byte.is_ascii_graphic()));
        assert_eq!(sealer.open(PURPOSE, &token).as_deref(), Some(plain));
    }
}

#[test]
fn never_seals_the_same_twice() {
    let sealer = sealer(&[1]);

    assert_ne!(sealer.seal(PURPOSE, b"plain"), sealer.seal(PURPOSE, b"plain"));
}

#[test]
fn opens_tokens_of_another_process_with_the_same_key() {
    let token = sealer(&[1]).seal(PURPOSE, b"plain");

    assert_eq!(sealer(&[1]).open(PURPOSE, &token).unwrap(), b"plain");
    assert_eq!(sealer(&[2]).open(PURPOSE, &token), None);
}

#[test]
fn makes_a_key_of_its_own_when_none_is_given() {
    let (one, other) = (Sealer::new(&[], &secret()), Sealer::new(&[], &secret()));
    let token = one.seal(PURPOSE, b"plain");

    assert_eq!(one.open(PURPOSE, &token).unwrap(), b"plain");
    assert_eq!(other.open(PURPOSE, &token), None);
}

#[test]
fn rotates_keys_without_ending_tokens() {
    let old = sealer(&[1]).seal(PURPOSE, b"old");
    let rotated = sealer(&[2, 1]);
    let new = rotated.seal(PURPOSE, b"new");

    assert_eq!(rotated.open(PURPOSE, &old).unwrap(), b"old");
    assert_eq!(sealer(&[2]).open(PURPOSE, &new).unwrap(), b"new");
    assert_eq!(sealer(&[2]).open(PURPOSE, &old), None);
    assert_eq!(sealer(&[1]).open(PURPOSE, &new), None);
}

#[test]
fn opens_for_no_other_purpose() {
    let sealer = sealer(&[1]);
    let token = sealer.seal(PURPOSE, b"plain");

    assert_eq!(sealer.open(b"toolgate test v2", &token), None);
    assert_eq!(sealer.open(b"", &token), None);
}

#[test]
fn refuses_a_token_with_any_character_changed() {
    let sealer = sealer(&[1, 2]);
    let token = sealer.seal(PURPOSE, b"plain");

    for place in 0..token.len() {
        for other in ["A", "B", "_", "=", "\u{e9}"] {
            let mut changed = token.clone();
            changed.replace_range(place..=place, other);
            assert!(changed == token || sealer.open(PURPOSE, &changed).is_none(), "{changed}");
        }
    }
}

#[test]
fn refuses_a_token_with_any_bit_changed() {
    let sealer = sealer(&[1]);
    let token = URL_SAFE_NO_PAD.decode(sealer.seal(PURPOSE, b"plain")).unwrap();

    for bit in 0..token.len() * 8 {
        let mut changed = token.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(sealer.open(PURPOSE, &URL_SAFE_NO_PAD.encode(changed)), None);
    }
}

#[test]
fn refuses_a_token_cut_or_continued_anywhere() {
    let sealer = sealer(&[1]);
    let token = sealer.seal(PURPOSE, b"plain");

    for end in 0..token.len() {
        assert_eq!(sealer.open(PURPOSE, &token[..end]), None);
    }
    for more in ["A", "AAAA", "=", " ", "\n"] {
        assert_eq!(sealer.open(PURPOSE, &format!("{token}{more}")), None);
    }
}

#[test]
fn opens_up_to_the_longest_token_and_no_further() {
    let sealer = sealer(&[1]);
    let longest = sealer.seal(PURPOSE, &[7; MAX_PLAIN]);

    assert_eq!(longest.len(), MAX_TOKEN);
    assert_eq!(sealer.open(PURPOSE, &longest).unwrap(), [7; MAX_PLAIN]);
    assert_eq!(sealer.open(PURPOSE, &sealer.seal(PURPOSE, &[7; MAX_PLAIN + 1])), None);
}

#[test]
fn shows_no_secret() {
    assert_eq!(format!("{:?}", sealer(&[1, 2])), "Sealer { keys: 2, .. }");
}

proptest! {
    #[test]
    fn opens_no_garbage(garbage in any::<String>(), bytes in any::<Vec<u8>>()) {
        let sealer = sealer(&[1]);
        prop_assert_eq!(sealer.open(PURPOSE, &garbage), None);

        let with_our_key_id = [&sealer.first.id[..], &bytes].concat();
        prop_assert_eq!(sealer.open(PURPOSE, &URL_SAFE_NO_PAD.encode(with_our_key_id)), None);
    }

    #[test]
    fn opens_anything_it_sealed(plain in prop::collection::vec(any::<u8>(), 0..=MAX_PLAIN)) {
        let sealer = sealer(&[1]);
        prop_assert_eq!(sealer.open(PURPOSE, &sealer.seal(PURPOSE, &plain)), Some(plain));
    }
}
