//! A deterministic part of a long study, for more than one machine: part K of N takes every N-th picture or site.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// Part `number` of `of`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shard {
    /// 1 to `of`.
    pub number: usize,
    /// How many parts there are.
    pub of: usize,
}

impl Shard {
    /// Whether it takes the picture or site `index`, counted from 0.
    #[must_use]
    pub const fn takes(self, index: usize) -> bool {
        index % self.of == self.number - 1
    }
}

impl fmt::Display for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.number, self.of)
    }
}

impl FromStr for Shard {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let parts = text.split_once('/').and_then(|(number, of)| Some((number.trim().parse().ok()?, of.trim().parse().ok()?)));
        match parts {
            Some((number, of)) if (1..=of).contains(&number) => Ok(Self { number, of }),
            _ => Err(Error::setting("shard", text, "K/N with K from 1 to N, such as 2/5")),
        }
    }
}

/// Puts what the parts found, in the order of their numbers, back into the order of the whole.
///
/// # Errors
/// When a part has more or fewer than it must have.
pub fn interleave<T>(mut parts: Vec<std::vec::IntoIter<T>>) -> Result<Vec<T>> {
    let (total, of) = (parts.iter().map(ExactSizeIterator::len).sum::<usize>(), parts.len());
    let whole: Vec<T> = (0..total).map_while(|index| parts[index % of].next()).collect();
    if whole.len() < total {
        return Err(Error::setting(
            "parts",
            format!("{total} entries in {of} files"),
            "as many in each as its number says: name the files of one study",
        ));
    }
    Ok(whole)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_hold_everything_once_and_come_back_in_order() {
        for of in 1..7 {
            let shards: Vec<Shard> = (1..=of).map(|number| Shard { number, of }).collect();
            let parts = shards.iter().map(|s| (0..20).filter(|i| s.takes(*i)).collect::<Vec<_>>().into_iter()).collect();
            assert_eq!(interleave(parts).unwrap(), (0..20).collect::<Vec<_>>());
        }
        assert!(interleave(vec![vec![1].into_iter(), vec![2, 3].into_iter()]).is_err());
        for wrong in ["", "0/3", "4/3", "1", "a/b", "1/0", "-1/2"] {
            assert!(wrong.parse::<Shard>().is_err(), "{wrong}");
        }
        assert_eq!("2/5".parse::<Shard>().unwrap().to_string(), "2/5");
    }
}
