//! Sealed tokens: what the proxy hands to a client and wants back unread and unchanged. What is inside, and how long
//! it is good for, is the business of whoever seals.

#[cfg(test)]
mod tests;

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey};
use ring::digest::{Context, SHA256};
use ring::hkdf::{HKDF_SHA256, Prk, Salt};
use ring::rand::{SecureRandom, SystemRandom};
use toolgate_config::SessionKey;

/// What a key is made of.
pub(crate) type Secret = [u8; 32];

/// One of a process's own. Tokens that it sealed end with the process, and those that take over from it.
pub(crate) fn secret() -> Secret {
    draw(&SystemRandom::new())
}

/// The longest token that is looked at.
pub(crate) const MAX_TOKEN: usize = 4096;

/// The most that fits into such a token.
pub(crate) const MAX_PLAIN: usize = MAX_TOKEN / 4 * 3 - OVERHEAD;

// A token is, before base64: id of the key, salt, nonce, ciphertext, tag.
const ID_LEN: usize = 4;
const SALT_LEN: usize = 16;
const TAG_LEN: usize = 16;
const OVERHEAD: usize = ID_LEN + SALT_LEN + NONCE_LEN + TAG_LEN;

/// Seals and opens tokens by a ring of keys: the first seals, all open.
///
/// Each token has an AES-256-GCM key of its own, made by HKDF from the ring's key, the purpose and a random salt. So no
/// number of tokens wears a key out, and what was sealed for one purpose does not open for another.
pub(crate) struct Sealer {
    first: RingKey,
    others: Vec<RingKey>,
    random: SystemRandom,
}

impl Sealer {
    /// A sealer with these keys, or with the process's own when there are none. What its own sealed opens in either case.
    pub(crate) fn new(keys: &[SessionKey], own: &Secret) -> Self {
        Self::with_secrets(keys.iter().map(SessionKey::expose).chain([own]))
    }

    fn with_secrets<'a>(secrets: impl Iterator<Item = &'a Secret>) -> Self {
        let random = SystemRandom::new();
        let mut keys = secrets.map(RingKey::new);
        let first = keys.next().unwrap_or_else(|| RingKey::new(&draw(&random)));
        Self { first, others: keys.collect(), random }
    }

    /// A token that holds `plain`: visible ASCII, fit for a header or a URL. Above [`MAX_PLAIN`] it cannot be opened.
    ///
    /// `purpose` tells kinds of tokens apart, such as `b"toolgate session v1"`.
    pub(crate) fn seal(&self, purpose: &'static [u8], plain: &[u8]) -> String {
        let (salt, nonce) = (draw(&self.random), draw(&self.random));
        let mut token = Vec::with_capacity(OVERHEAD + plain.len());
        token.extend_from_slice(&self.first.id);
        token.extend_from_slice(&salt);
        token.extend_from_slice(&nonce);
        token.extend_from_slice(plain);
        let (head, body) = token.split_at_mut(OVERHEAD - TAG_LEN);
        let key = self.first.for_token(purpose, salt);
        let sealed = key.and_then(|key| {
            let nonce = Nonce::assume_unique_for_key(nonce);
            key.seal_in_place_separate_tag(nonce, Aad::from(&*head), body).ok()
        });
        #[expect(clippy::expect_used, reason = "fails only for lengths that HKDF or AES-GCM do not have")]
        let tag = sealed.expect("a key of 32 bytes and a plaintext below 64 GiB");
        token.extend_from_slice(tag.as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// What a token holds, if one of the keys sealed it for this purpose. Why it does not open is nobody's business.
    pub(crate) fn open(&self, purpose: &'static [u8], token: &str) -> Option<Vec<u8>> {
        if token.len() > MAX_TOKEN {
            return None;
        }
        let token = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (&id, _) = token.split_first_chunk::<ID_LEN>()?;
        let mut keys = std::iter::once(&self.first).chain(&self.others).filter(|key| key.id == id);
        keys.find_map(|key| key.open(purpose, &token))
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sealer").field("keys", &(1 + self.others.len())).finish_non_exhaustive()
    }
}

/// One key of the ring, ready to derive from.
struct RingKey {
    /// Goes into each token, so that the key need not be guessed. Tells nothing about the key.
    id: [u8; ID_LEN],
    root: Prk,
}

impl RingKey {
    fn new(secret: &[u8; 32]) -> Self {
        let mut id = Context::new(&SHA256);
        id.update(b"toolgate key id v1");
        id.update(secret);
        let id = *id.finish().as_ref().first_chunk().unwrap_or(&[0; ID_LEN]);
        Self { id, root: Salt::new(HKDF_SHA256, b"toolgate seal v1").extract(secret) }
    }

    fn for_token(&self, purpose: &'static [u8], salt: [u8; SALT_LEN]) -> Option<LessSafeKey> {
        let info = [purpose, &salt];
        let key = self.root.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }

    fn open(&self, purpose: &'static [u8], token: &[u8]) -> Option<Vec<u8>> {
        let (head, sealed) = token.split_at_checked(OVERHEAD - TAG_LEN)?;
        let (&salt, nonce) = head.get(ID_LEN..)?.split_first_chunk()?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let mut body = sealed.to_vec();
        let length = self.for_token(purpose, salt)?.open_in_place(nonce, Aad::from(head), &mut body).ok()?.len();
        body.truncate(length);
        Some(body)
    }
}

fn draw<const N: usize>(random: &SystemRandom) -> [u8; N] {
    let mut bytes = [0; N];
    #[expect(clippy::expect_used, reason = "there is nothing safe to go on with")]
    random.fill(&mut bytes).expect("the operating system has randomness");
    bytes
}
