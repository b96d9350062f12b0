//! From the flags that commands share to settings: one, or every combination of what was listed.

use std::path::Path;

use super::args::{BitsOf, RunArgs};
use crate::error::{Error, Result};
use crate::model::{SiteKind, SitePattern};
use crate::quant::{BitWidth, GeluShape, GroupCount, Method, Rounding, Settings, SiteOverride, SoftmaxShape, WeightScales};
use crate::read;

/// The settings that a report, an allocation or a suggestion holds, or settings by themselves.
fn read_settings(path: &Path) -> Result<Settings> {
    let text = read::text(path)?;
    let broken = |e: serde_json::Error| {
        let found = format!("expected the settings of a JSON file that igq wrote ({e})");
        Error::content(path.display().to_string(), found, "write it with `igq run --format json --output FILE`")
    };
    let mut value: serde_json::Value = serde_json::from_str(&text).map_err(broken)?;
    let settings = value.get_mut("settings").map(serde_json::Value::take).unwrap_or(value);
    Settings::read(settings).map_err(broken)
}

impl RunArgs {
    /// The settings of a single run.
    ///
    /// # Errors
    /// When a flag has several values, which only `eval` takes.
    pub fn settings(&self) -> Result<Settings> {
        let mut grid = self.grid()?;
        match grid.len() {
            1 => Ok(grid.remove(0)),
            n => Err(Error::setting("flags", format!("{n} settings"), "one value for each flag (lists are for `igq eval`)")),
        }
    }

    /// Every combination of the listed values; methods without groups appear once for each bit-width.
    ///
    /// # Errors
    /// When row group counts do not pair with channel group counts.
    pub fn grid(&self) -> Result<Vec<Settings>> {
        if let Some(path) = &self.settings_file {
            return Ok(vec![read_settings(path)?]);
        }
        let own = |sites: &SitePattern| SiteOverride { sites: sites.clone(), wbits: None, abits: None, groups: None };
        let groups = self.site_groups.iter().map(|(p, g)| SiteOverride { groups: Some(*g), ..own(p) });
        let abits = self.site_abits.iter().map(|(p, b)| SiteOverride { abits: Some(*b), ..own(p) });
        let wbits = self.site_wbits.iter().map(|(p, b)| SiteOverride { wbits: Some(*b), ..own(p) });
        let kinds = self.bits.iter().filter_map(|bits| match bits {
            BitsOf::Kind(kind, bits) => Some((kind, *bits)),
            BitsOf::All(_) => None,
        });
        let of_kind = |(kind, bits): (&SiteKind, BitWidth)| -> Result<SiteOverride> {
            let sites = SitePattern::of_kind(*kind);
            Ok(SiteOverride { wbits: Some(bits), abits: Some(bits), ..own(&sites) })
        };
        let kinds = kinds.map(of_kind).collect::<Result<Vec<_>>>()?;
        let without_pictures = self.quantizers.is_some();
        let base = Settings {
            block: self.block,
            preset: self.preset.unwrap_or_default(),
            smooth: self.smooth,
            scope: self.scope,
            kinds: if self.kinds.is_empty() { SiteKind::ALL.into() } else { self.kinds.iter().copied().collect() },
            keep_float: self.keep_float.clone(),
            overrides: kinds.into_iter().chain(groups).chain(abits).chain(wbits).collect(),
            seed: self.seed,
            arithmetic: self.arithmetic,
            ..Settings::default()
        };
        let listed = [&self.wbits, &self.abits, &self.sbits].into_iter().flatten().next();
        if let (Some(BitsOf::All(all)), Some(one)) = (self.bits.iter().find(|bits| matches!(bits, BitsOf::All(_))), listed) {
            let expected = "either --bits for all, or --wbits, --abits and --sbits";
            return Err(Error::setting("--bits beside --wbits, --abits or --sbits", format!("{all} and {one}"), expected));
        }
        let counts = self.group_pairs(&base)?;
        let mut grid: Vec<Settings> = Vec::new();
        for &method in &self.method {
            for &(wbits, abits, sbits) in &self.bit_triples(&base) {
                for &(groups, row_groups) in &counts {
                    for ((softmax, gelu), (weights, weight_scales)) in self.shapes_and_weights(without_pictures) {
                        let settings = Settings {
                            method,
                            wbits,
                            abits,
                            sbits,
                            groups,
                            row_groups,
                            weights,
                            weight_scales,
                            softmax,
                            gelu,
                            ..base.clone()
                        };
                        let same = |known: &Settings| {
                            let bits = (known.wbits, known.abits, known.sbits) == (wbits, abits, sbits);
                            let shapes =
                                (known.softmax, known.gelu, known.weights, known.weight_scales) == (softmax, gelu, weights, weight_scales);
                            known.method == method && (method == Method::Float || (bits && shapes && !method.uses_groups()))
                        };
                        if !grid.iter().any(same) {
                            grid.push(settings);
                        }
                    }
                }
            }
        }
        Ok(grid)
    }

    /// Without calibration pictures, GPTQ has nothing to go by: then the default is rounding to the nearest.
    fn shapes_and_weights(&self, without_pictures: bool) -> Vec<((SoftmaxShape, GeluShape), (Rounding, WeightScales))> {
        let usual = if without_pictures { Rounding::Nearest } else { Rounding::default() };
        let weights = if self.weights.is_empty() { vec![usual] } else { self.weights.clone() };
        let scales = if self.weight_scales.is_empty() { vec![WeightScales::default()] } else { self.weight_scales.clone() };
        let pairs: Vec<_> = weights.iter().flat_map(|&w| scales.iter().map(move |&s| (w, s))).collect();
        self.shapes().into_iter().flat_map(|shape| pairs.iter().map(move |&pair| (shape, pair))).collect()
    }

    fn shapes(&self) -> Vec<(SoftmaxShape, GeluShape)> {
        let softmax = if self.softmax.is_empty() { vec![SoftmaxShape::Method] } else { self.softmax.clone() };
        let gelu = if self.gelu.is_empty() { vec![GeluShape::Method] } else { self.gelu.clone() };
        softmax.iter().flat_map(|&s| gelu.iter().map(move |&g| (s, g))).collect()
    }

    fn bit_triples(&self, base: &Settings) -> Vec<(BitWidth, BitWidth, BitWidth)> {
        let all: Vec<BitWidth> =
            self.bits.iter().filter_map(|bits| if let BitsOf::All(bits) = bits { Some(*bits) } else { None }).collect();
        if !all.is_empty() {
            return all.into_iter().map(|b| (b, b, b)).collect();
        }
        let or = |list: &[BitWidth], default| if list.is_empty() { vec![default] } else { list.to_vec() };
        let mut triples = Vec::new();
        for wbits in or(&self.wbits, base.wbits) {
            for abits in or(&self.abits, base.abits) {
                triples.extend(or(&self.sbits, abits).into_iter().map(|sbits| (wbits, abits, sbits)));
            }
        }
        triples
    }

    fn group_pairs(&self, base: &Settings) -> Result<Vec<(GroupCount, GroupCount)>> {
        let (groups, rows) = (&self.groups, &self.row_groups);
        Ok(match (groups.as_slice(), rows.as_slice()) {
            ([], []) => vec![(base.groups, base.row_groups)],
            (groups, []) => groups.iter().map(|&g| (g, g)).collect(),
            ([], rows) => rows.iter().map(|&r| (base.groups, r)).collect(),
            (groups, [row]) => groups.iter().map(|&g| (g, *row)).collect(),
            (groups, rows) if groups.len() == rows.len() => groups.iter().copied().zip(rows.iter().copied()).collect(),
            (groups, rows) => {
                let expected = format!("one value or {}, as for --groups", groups.len());
                return Err(Error::setting("--row-groups", format!("{} values", rows.len()), expected));
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::{Cli, Command};
    use crate::quant::Preset;

    fn common(flags: &[&str]) -> RunArgs {
        let args = ["igq", "eval"].iter().chain(flags);
        match Cli::try_parse_from(args).unwrap().command {
            Some(Command::Eval(eval)) => eval.common,
            other => unreachable!("{other:?}"),
        }
    }

    #[test]
    fn softmax_bits_and_row_groups_follow_unless_they_are_given() {
        let settings = common(&["--abits", "6", "--groups", "16"]).settings().unwrap();
        assert_eq!((settings.wbits.get(), settings.abits.get(), settings.sbits.get()), (4, 6, 6));
        assert_eq!((settings.groups.get(), settings.row_groups.get()), (16, 16));
        let settings = common(&["--abits", "6", "--sbits", "8", "--row-groups", "2"]).settings().unwrap();
        assert_eq!((settings.sbits.get(), settings.groups.get(), settings.row_groups.get()), (8, 8, 2));
    }

    #[test]
    fn a_grid_has_no_row_twice() {
        let grid = common(&["--method", "float,layer,igq", "--bits", "4,6,8", "--groups", "4,8,16"]).grid().unwrap();
        assert_eq!(grid.len(), 1 + 3 + 9);
        assert!(common(&["--method", "layer,igq"]).settings().is_err());
    }

    #[test]
    fn bits_of_a_kind_go_to_its_sites_and_weights() {
        let settings = common(&["--bits", "4,fc2=6,head=32"]).settings().unwrap();
        let bits = |site: &str| {
            let site = site.parse().unwrap();
            (settings.weight_bits(site).get(), settings.activation_bits(site).get())
        };
        assert_eq!((bits("blocks.3.fc2"), bits("layers.1.blocks.0.fc2"), bits("blocks.3.fc1")), ((6, 6), (6, 6), (4, 4)));
        assert_eq!((bits("head"), bits("patch")), ((32, 32), (8, 8)));
        assert!(common(&["--bits", "4", "--abits", "6"]).settings().is_err());
        assert!(Cli::try_parse_from(["igq", "run", "--bits", "fc9=4"]).is_err());
    }

    #[test]
    fn flags_give_the_settings_that_they_came_from() {
        for line in [
            "--bits 3 --groups 16 --row-groups 2 --method igq-e --weights nearest --weight-scales block=16 --preset inside",
            "--abits 6 --sbits 8 --keep-float head,blocks.1.* --kinds qkv,fc1,head --softmax log2 --gelu twin --seed 7 --block 24",
            "--site-groups blocks.*.fc2=16 --site-abits head=8 --site-wbits blocks.0.*=6 --arithmetic integer --smooth",
            "",
        ] {
            let words: Vec<&str> = line.split_whitespace().collect();
            let settings = common(&words).settings().unwrap();
            let told = shlex::split(&Settings::command_line(&settings.flags())).unwrap();
            let again = common(&told.iter().map(String::as_str).collect::<Vec<_>>()).settings().unwrap();
            assert_eq!(again, settings, "{line}: {told:?}");
        }
    }

    #[test]
    fn settings_of_before_mean_what_they_meant() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("old.json");
        let mut value = serde_json::to_value(Settings::default()).unwrap();
        for key in ["preset", "weights"] {
            value.as_object_mut().unwrap().remove(key);
        }
        std::fs::write(&path, value.to_string()).unwrap();
        let read = read_settings(&path).unwrap();
        assert_eq!((read.method, read.preset, read.weights), (Method::IgqMeans, Preset::All, Rounding::Nearest));
    }
}
