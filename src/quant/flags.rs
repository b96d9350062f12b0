//! Settings as the flags of the command line that give them again.

use super::choices::Arithmetic;
use super::method::{GeluShape, SoftmaxShape};
use super::settings::Settings;
use super::weight_scheme::WeightScales;
use crate::model::SiteKind;

impl Settings {
    /// The flags that differ from the defaults, name and value.
    #[must_use]
    pub fn flags(&self) -> Vec<(&'static str, String)> {
        let usual = Self::default();
        let mut flags: Vec<(&'static str, String)> = Vec::new();
        let mut add = |differs: bool, name: &'static str, value: String| {
            if differs {
                flags.push((name, value));
            }
        };
        add(self.method != usual.method, "--method", self.method.to_string());
        add(self.wbits != usual.wbits, "--wbits", self.wbits.to_string());
        add(self.abits != usual.abits, "--abits", self.abits.to_string());
        add(self.sbits != self.abits, "--sbits", self.sbits.to_string());
        add(self.groups != usual.groups, "--groups", self.groups.to_string());
        add(self.row_groups != self.groups, "--row-groups", self.row_groups.to_string());
        add(self.weights != usual.weights, "--weights", self.weights.name().into());
        add(self.weight_scales != WeightScales::Channel, "--weight-scales", self.weight_scales.to_string());
        add(self.block != usual.block, "--block", self.block.to_string());
        add(self.preset != usual.preset, "--preset", self.preset.name().into());
        add(self.smooth, "--smooth", String::new());
        add(self.scope != usual.scope, "--scope", self.scope.name().into());
        let kinds: Vec<&str> = SiteKind::ALL.into_iter().filter(|kind| self.kinds.contains(kind)).map(SiteKind::name).collect();
        add(self.kinds != usual.kinds, "--kinds", kinds.join(","));
        let kept: Vec<&str> = self.keep_float.iter().map(crate::model::SitePattern::as_str).collect();
        add(!kept.is_empty(), "--keep-float", kept.join(","));
        add(self.softmax != SoftmaxShape::Method, "--softmax", self.softmax.name().into());
        add(self.gelu != GeluShape::Method, "--gelu", self.gelu.name().into());
        add(self.arithmetic != Arithmetic::FakeQuantized, "--arithmetic", self.arithmetic.name().into());
        for own in &self.overrides {
            let mut of = |name, value: Option<String>| {
                if let Some(value) = value {
                    flags.push((name, format!("{}={value}", own.sites.as_str())));
                }
            };
            of("--site-groups", own.groups.map(|n| n.to_string()));
            of("--site-abits", own.abits.map(|n| n.to_string()));
            of("--site-wbits", own.wbits.map(|n| n.to_string()));
        }
        if self.seed != usual.seed {
            flags.push(("--seed", self.seed.to_string()));
        }
        flags
    }

    /// Flags as one line for a POSIX shell.
    #[must_use]
    pub fn command_line(flags: &[(&'static str, String)]) -> String {
        let word = |text: &str| shlex::try_quote(text).map_or_else(|_| text.to_string(), std::borrow::Cow::into_owned);
        let one =
            |(name, value): &(&'static str, String)| if value.is_empty() { (*name).to_string() } else { format!("{name} {}", word(value)) };
        flags.iter().map(one).collect::<Vec<_>>().join(" ")
    }
}
