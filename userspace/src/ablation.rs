//! `BEAM_ABLATION`: parts of the datapath left out, so that `scripts/bench ablation` can measure what they bring.
//!
//! For measuring only: no flag, no key of the configuration file, a warning at the start, and a line in `beam status`.

use crate::failure::Failure;
use anyhow::anyhow;

const VARIABLE: &str = "BEAM_ABLATION";
/// What the words of the variable leave out.
const WORDS: [(&str, &str); 2] = [
    ("no-arenas", "each payload from a socket gets a heap buffer of its own"),
    ("no-fused-copy", "each batch is copied once more between QUIC's buffers and the frames, both ways"),
];
/// A build's own difference, told beside the words.
const SYSTEM_ALLOCATOR: &str = "system-allocator";

/// Which parts there are; all, unless the variable says otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ablation {
    pub(crate) arenas: bool,
    pub(crate) fused_copy: bool,
}

impl Ablation {
    /// What the variable asks for, said aloud; words that it doesn't know are refused.
    pub(crate) fn asked() -> Result<Self, Failure> {
        let asked = Self::parse(&variable())?;
        let left_out = words();
        if !left_out.is_empty() {
            let meant = WORDS.iter().filter(|(word, _)| left_out.iter().any(|asked| asked == word));
            let meant: Vec<&str> = meant.map(|(_, meaning)| *meaning).collect();
            tracing::warn!("for measuring only: {} {}", left_out.join(", "), meant.join("; "));
        }
        Ok(asked)
    }

    fn parse(text: &str) -> Result<Self, Failure> {
        let known = || WORDS.map(|(word, _)| word).join(", ");
        match of(text).find(|word| WORDS.iter().all(|(known, _)| known != word)) {
            Some(word) => Err(Failure::Config(anyhow!(
                "{VARIABLE}: `{word}` is no part that can be left out; known: {}; without the variable nothing is",
                known()
            ))),
            None => Ok(Self {
                arenas: of(text).all(|word| word != WORDS[0].0),
                fused_copy: of(text).all(|word| word != WORDS[1].0),
            }),
        }
    }
}

/// What this process does without, for `beam status`: empty in every ordinary one.
pub(crate) fn words() -> Vec<String> {
    let mut words: Vec<String> = of(&variable()).map(str::to_owned).collect();
    if cfg!(feature = "system-allocator") {
        words.push(SYSTEM_ALLOCATOR.to_owned());
    }
    words
}

fn variable() -> String {
    std::env::var_os(VARIABLE).map(|text| text.to_string_lossy().into_owned()).unwrap_or_default()
}

fn of(text: &str) -> impl Iterator<Item = &str> {
    text.split(',').map(str::trim).filter(|word| !word.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_words_leave_their_part_out_and_others_are_refused() {
        let parse = |text| Ablation::parse(text).map_err(|failure| failure.to_string());
        assert_eq!(parse(""), Ok(Ablation { arenas: true, fused_copy: true }));
        assert_eq!(parse("no-arenas"), Ok(Ablation { arenas: false, fused_copy: true }));
        assert_eq!(parse(" no-fused-copy ,no-arenas"), Ok(Ablation { arenas: false, fused_copy: false }));
        let refused = parse("no-arenas,no-quic").unwrap_err();
        assert!(refused.contains("`no-quic` is no part"), "{refused}");
        assert!(refused.contains("no-arenas, no-fused-copy"), "{refused}");
    }
}
