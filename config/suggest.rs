//! "Did you mean": the known word nearest to a wrong one.

const LONGEST: usize = 128;
/// A suggestion is not worth more work than this.
const MOST: usize = 1000;

/// The candidate nearest to `word`, if it is near enough to be a slip of the hand, or begins or ends too soon.
pub(crate) fn closest<'a>(word: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_lowercase();
    // Distance is quadratic, and no slip turns a short word into a very long one.
    if word.len() > LONGEST {
        return None;
    }
    let near = |distance: usize, candidate: &str| {
        let cut_short =
            word.len().min(candidate.len()) >= 3 && (word.starts_with(candidate) || candidate.starts_with(&word));
        cut_short || distance <= (candidate.len() / 3).clamp(1, 3)
    };
    candidates
        .into_iter()
        .take(MOST)
        .map(|candidate| (distance(&word, &candidate.to_lowercase()), candidate))
        .filter(|&(distance, candidate)| near(distance, candidate))
        .min_by_key(|&(distance, _)| distance)
        .map(|(_, candidate)| candidate)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn one word into the other.
fn distance(a: &str, b: &str) -> usize {
    let (a, b) = (a.chars().collect::<Vec<_>>(), b.chars().collect::<Vec<_>>());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(rows[i - 2][j - 2] + 1);
            }
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        let keys = ["url", "name", "headers", "timeout", "max_inflight"];

        for (slip, meant) in [
            ("urls", Some("url")),
            ("nmae", Some("name")),
            ("Header", Some("headers")),
            ("time_out", Some("timeout")),
            ("max_in_flight", Some("max_inflight")),
            ("timeout_seconds", Some("timeout")),
            ("command", None),
            ("", None),
        ] {
            assert_eq!(closest(slip, keys), meant, "{slip}");
        }
    }
}
