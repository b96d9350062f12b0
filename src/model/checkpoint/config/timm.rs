//! What the code of one of timm's architectures says and its `config.json` does not: heads, epsilon, activation, the place of the norms,
//! and whether igq computes it at all. The table was read from timm itself (`tests/timm/table.py`).

use serde_json::Value;

use super::lookup;
use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;
use crate::model::ops::Activation;

/// `NAME HEADS EPSILON ACTIVATION FLAGS`, a line each; heads of a Swin are 0, since its tensors tell them.
static TABLE: &str = include_str!("../../../../assets/timm-architectures.txt");

/// What is known of an architecture.
#[derive(Debug, Clone, PartialEq)]
pub struct Architecture {
    /// timm's name.
    pub name: &'static str,
    /// Attention heads; 0 where tensors tell them.
    pub heads: usize,
    /// Epsilon of the layer norms.
    pub norm_eps: f64,
    /// What stands between the two layers of an MLP.
    pub activation: Activation,
    /// Whether norms stand behind attention and MLP.
    pub residual_post_norm: bool,
    /// Whether no norm stands behind the last block.
    pub no_final_norm: bool,
    /// Whether the class token and the registers have no position.
    pub no_embed_class: bool,
    /// Whether its pooling is the mean although it has a class token.
    pub avg: bool,
    /// Whether timm's code and the published weights disagree on the activation: SigLIP was trained with the tanh form of GELU.
    pub activation_unsure: bool,
}

/// The architecture that the configuration names, without the tag of its weights.
fn named(checkpoint: &Checkpoint) -> Option<&str> {
    let name = lookup(checkpoint.config.as_ref(), "architecture").and_then(Value::as_str)?;
    name.split('.').next()
}

impl Architecture {
    /// The row of the architecture that `config.json` names; none where it names none.
    ///
    /// # Errors
    /// When igq does not compute this architecture, or it is not in the table.
    pub fn of(checkpoint: &Checkpoint) -> Result<Option<Self>> {
        let Some(name) = named(checkpoint) else { return Ok(None) };
        let rows = || TABLE.lines().filter(|line| !line.starts_with('#')).map(|line| line.split_whitespace().collect::<Vec<_>>());
        let Some(row) = rows().find(|row| row.first() == Some(&name)) else {
            let near = |row: &Vec<&'static str>| row.first().map_or(0, |known| likeness(known, name));
            let closest = rows().max_by_key(near).and_then(|row| row.first().copied()).unwrap_or_default();
            let problem = format!("the architecture `{name}` of config.json is not known; the closest known one is `{closest}`");
            return Err(Error::content(&checkpoint.name, problem, "if they are the same network, name that one in config.json"));
        };
        let broken = || Error::content("assets/timm-architectures.txt", format!("the row of {name} is damaged"), "build igq again");
        let &[name, heads, eps, activation, flags] = row.as_slice() else { return Err(broken()) };
        if let Some(what) = flags.strip_prefix("refused:") {
            let problem = format!("the architecture `{name}` has {}, which igq does not compute", what.replace('_', " "));
            return Err(Error::content(&checkpoint.name, problem, "name a plain ViT, DeiT, DINOv2 or Swin classifier"));
        }
        let activation = match activation {
            "gelu" => Activation::Gelu,
            "gelu-tanh" => Activation::GeluTanh,
            "quick-gelu" => Activation::QuickGelu,
            "swiglu" => Activation::SwiGlu,
            _ => return Err(broken()),
        };
        let has = |wanted: &str| flags.split(',').any(|flag| flag == wanted);
        Ok(Some(Self {
            name,
            heads: heads.parse().map_err(|_| broken())?,
            norm_eps: eps.parse().map_err(|_| broken())?,
            activation,
            residual_post_norm: has("residual-post-norm"),
            no_final_norm: has("no-final-norm"),
            no_embed_class: has("no-embed-class"),
            avg: has("avg"),
            activation_unsure: has("activation-unsure"),
        }))
    }
}

/// How many letter pairs two names share: enough to find a misspelt one.
fn likeness(a: &str, b: &str) -> usize {
    let pairs = |name: &str| name.as_bytes().windows(3).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let of_b = pairs(b);
    2 * pairs(a).iter().filter(|pair| of_b.contains(pair)).count() + 100 - a.len().abs_diff(b.len()).min(100)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_whole_and_stands_once() {
        let mut names: Vec<&str> = Vec::new();
        for line in TABLE.lines().filter(|line| !line.starts_with('#')) {
            let row: Vec<&str> = line.split_whitespace().collect();
            assert_eq!(row.len(), 5, "{line}");
            assert!(row[1].parse::<usize>().is_ok() && row[2].parse::<f64>().is_ok(), "{line}");
            assert!(["gelu", "gelu-tanh", "quick-gelu", "swiglu", "-"].contains(&row[3]), "{line}");
            names.push(row[0]);
        }
        let all = names.len();
        names.sort_unstable();
        names.dedup();
        assert!(all > 150 && names.len() == all, "{all} rows, {} names", names.len());
    }
}
