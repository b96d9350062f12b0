//! Bit operations: what a quantized product costs, and what grouping its operands adds (section 3.3 and method, section 6).

use schemars::JsonSchema;
use serde::Serialize;

use super::format::Format;
use super::method::{Parts, Scheme};
use super::settings::Settings;
use crate::model::{Product, RightOperand, Site, SiteInfo, SiteKind};

/// Bit operations of one 32-bit operation \[D\].
const WIDE: u64 = 32;

/// Bit operations of one site for one picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SiteBops {
    /// `M K P * bits_a * bits_b` of the products whose left operand the site is; 0 for keys and values.
    pub product: u64,
    /// Finding the ranges: `2 N C` operations for channels; the largest value alone, `R N`, for softmax rows.
    pub ranges: u64,
    /// Assigning: `5 C G` operations for channels; `2 R G` for softmax rows, whose distance has one term \[D\].
    pub assignment: u64,
    /// Adding the partial results of the groups: `N C_out (G - 1)` operations. Values and softmax rows scale whole columns and rows of the
    /// result and need none (section 3.2); keys and queries split the inner dimension of each head \[D\].
    pub sums: u64,
}

impl SiteBops {
    /// What grouping adds.
    #[must_use]
    pub const fn overhead(&self) -> u64 {
        self.ranges + self.assignment + self.sums
    }

    /// Everything.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.product + self.overhead()
    }
}

/// How the channels of a sum fall apart.
enum Split {
    /// Neighbours, so many together.
    Blocks(usize),
    /// So many groups of any channels.
    Scattered(usize),
}

impl Split {
    /// Into how many parts, with a scale each, the sum over `channels` falls where weights have blocks of `length` besides. Blocks of both sides
    /// share their ends; a group of any channels may have some in every block.
    fn with_blocks(self, length: usize, channels: usize) -> usize {
        match self {
            Self::Blocks(own) => {
                let ends = |x: &usize| *x == channels || x.is_multiple_of(own.max(1)) || x.is_multiple_of(length.max(1));
                (1..=channels).filter(ends).count()
            }
            Self::Scattered(groups) => (groups * channels.div_ceil(length.max(1))).min(channels),
        }
    }
}

/// Bit operations of `info` under `settings`; `sites` are those of the whole network.
#[must_use]
pub fn of_site(info: &SiteInfo, sites: &[SiteInfo], settings: &Settings) -> SiteBops {
    let bits = |site| u64::from(settings.activation_bits(site).get());
    let product = info.product.map_or(0, |p| {
        let right = match p.right {
            RightOperand::Weight => u64::from(settings.weight_bits(info.site).get()),
            RightOperand::Inner(site) | RightOperand::Columns(site) => bits(site),
        };
        multiplications(&p) * bits(info.site) * right
    });
    let mut bops = SiteBops { product, ..SiteBops::default() };
    let scheme = settings.scheme(info.site);
    let Scheme::Shared(method) = scheme else { return bops };
    if settings.activation_bits(info.site).is_float() {
        return bops;
    }
    let (channels, tokens) = (info.channels as u64, info.tokens as u64);
    let softmax = info.site.kind.is_softmax();
    let spec = method.spec();
    let attention = matches!(info.site.kind, SiteKind::Attn | SiteKind::V);
    let blocks = |length: usize| inner(info).div_ceil(length.max(1)) as u64;
    let groups = match spec.parts {
        Parts::Channels => channels,
        Parts::TokenGroups if attention => blocks(settings.block.into()),
        Parts::Groups | Parts::TokenGroups => settings.groups(info.site).get() as u64,
        Parts::Blocks(length) => blocks(length.unwrap_or(settings.block.into())),
        // Every token of the values has a scale of its own, and they meet the softmax along tokens.
        Parts::Tokens if info.site.kind == SiteKind::V => inner(info) as u64,
        Parts::Tokens | Parts::Whole => 1,
    };
    let tiled = matches!(spec.parts, Parts::TokenGroups | Parts::Blocks(_) | Parts::Tokens);
    if spec.dynamic {
        let row = info.product.map_or(tokens, |p| p.inner as u64);
        bops.ranges = WIDE * if softmax { channels * row } else { 2 * tokens * channels };
    }
    if spec.parts == Parts::TokenGroups && !attention {
        bops.ranges *= 2; // Of the channels, then of every token's values in a group.
    }
    if spec.instance_aware && !(tiled && attention) {
        bops.assignment = WIDE * if softmax { 2 } else { 5 } * channels * groups;
    }
    // Blocks of the weight split the same sum once more.
    let groups = info.layer.as_ref().map_or(groups, |_| {
        let inputs = inputs(info);
        let length = settings.weight_scheme(info.site).scales.block(inputs);
        let along = match spec.parts {
            Parts::Blocks(own) => Split::Blocks(own.unwrap_or(settings.block.into())),
            Parts::Tokens | Parts::Whole => Split::Blocks(inputs),
            Parts::Groups | Parts::TokenGroups | Parts::Channels => Split::Scattered(groups as usize),
        };
        along.with_blocks(length, inputs) as u64
    });
    let split = if tiled && attention { split_by_tokens(info, sites) } else { split_by(info, sites) };
    if let Some(split) = split {
        let results = (split.count * split.rows * split.columns) as u64;
        bops.sums = WIDE * results * (groups.min(split.inner as u64) - 1);
    }
    bops
}

/// The products whose inner dimension the groups of a site split.
fn split_by(info: &SiteInfo, sites: &[SiteInfo]) -> Option<Product> {
    match info.product {
        Some(p) => (!info.site.kind.is_softmax()).then_some(p),
        None => sites.iter().filter_map(|left| left.product).find(|p| p.right == RightOperand::Inner(info.site)),
    }
}

/// The product whose inner dimension tiles of values split: that with the softmax, whose own tiles end where theirs do, so that the sums count
/// once.
fn split_by_tokens(info: &SiteInfo, sites: &[SiteInfo]) -> Option<Product> {
    sites.iter().filter_map(|left| left.product).find(|p| p.right == RightOperand::Columns(info.site))
}

/// Values of a row of the weight: input channels, of a convolution those of a neighbourhood.
fn inputs(info: &SiteInfo) -> usize {
    info.product.map_or(info.channels, |product| product.inner)
}

/// Values along the inner dimension of the site's product: tokens of a window for softmax and values, channels of a head for queries and keys.
fn inner(info: &SiteInfo) -> usize {
    match info.site.kind {
        SiteKind::Attn | SiteKind::V => info.layout.seen(),
        _ => info.channels / info.heads.max(1),
    }
}

/// Bits for each value of the activation at a site: its code, and its share of what tiles and groups have of their own for this picture (a scale
/// for every tile, the group of every channel).
#[must_use]
pub fn effective_bits(info: &SiteInfo, settings: &Settings) -> f64 {
    let bits = settings.activation_bits(info.site);
    let Scheme::Shared(method) = settings.scheme(info.site) else { return bits.get().into() };
    if bits.is_float() {
        return 32.0;
    }
    let (spec, inner) = (method.spec(), inner(info));
    let attention = matches!(info.site.kind, SiteKind::Attn | SiteKind::V);
    // A site whose bits the format does not have is quantized in integers.
    let format = spec.format.map(|f| if f.bits().is_none_or(|own| own == bits) { f } else { Format::Int });
    let own = format.map_or(0.0, |format| f64::from(format.scale_bits(bits)));
    let rows = if info.site.kind.is_softmax() { info.layout.seen() } else { info.tokens };
    let assigned = |count: usize| f64::from(count.next_power_of_two().trailing_zeros()) / rows.max(1) as f64;
    let groups = settings.groups(info.site).get();
    let extra = match spec.parts {
        Parts::Tokens => own / if info.site.kind == SiteKind::V { info.channels } else { inner } as f64,
        Parts::Blocks(length) => own / length.unwrap_or(settings.block.into()).min(inner) as f64,
        Parts::TokenGroups if attention => own / usize::from(settings.block).min(inner) as f64,
        Parts::TokenGroups => own * groups.min(info.channels) as f64 / info.channels as f64 + assigned(groups),
        Parts::Groups if spec.instance_aware => assigned(groups),
        _ => 0.0,
    };
    f64::from(bits.get()) + extra
}

/// Mean bits for each value, codes and scales, of all weights and of all activations that are quantized: `(weights, activations)`; 32 where
/// nothing is.
#[must_use]
pub fn mean_effective_bits(sites: &[SiteInfo], settings: &Settings) -> (f64, f64) {
    let mean = |parts: &mut dyn Iterator<Item = (f64, f64)>| {
        let (bits, values) =
            parts.filter(|(bits, _)| *bits < 32.0).fold((0.0, 0.0), |(b, n), (bits, values)| (b + bits * values, n + values));
        if values > 0.0 { bits / values } else { 32.0 }
    };
    let weights = sites.iter().filter_map(|info| {
        let layer = info.layer.as_ref()?;
        Some((settings.weight_scheme(info.site).effective_bits(inputs(info)), (inputs(info) * layer.outputs) as f64))
    });
    let activations = sites.iter().map(|info| {
        let columns = if info.site.kind.is_softmax() { info.layout.seen() } else { info.tokens };
        (effective_bits(info, settings), (info.channels * columns) as f64)
    });
    (mean(&mut weights.into_iter()), mean(&mut activations.into_iter()))
}

fn multiplications(p: &Product) -> u64 {
    (p.count * p.rows * p.inner * p.columns) as u64
}

/// Bit operations of every site, in the order of `sites`.
#[must_use]
pub fn of_network(sites: &[SiteInfo], settings: &Settings) -> Vec<(Site, SiteBops)> {
    sites.iter().map(|info| (info.site, of_site(info, sites, settings))).collect()
}

/// Bit operations of the whole network for one picture.
#[must_use]
pub fn total(sites: &[SiteInfo], settings: &Settings) -> u64 {
    of_network(sites, settings).iter().map(|(_, bops)| bops.total()).sum()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::checkpoint::config::{Pool, VitConfig};
    use crate::model::network::LayerShape;
    use crate::model::positions::Resampling;
    use crate::model::{SiteKind, vit};
    use crate::quant::{BitWidth, GroupCount, Method, Preset, WeightScales};

    fn vit_b_16() -> Vec<SiteInfo> {
        vit::sites(&VitConfig {
            image_size: (224, 224),
            in_chans: 3,
            patch_size: (16, 16),
            embed_dim: 768,
            depth: 12,
            heads: 12,
            mlp_dim: 3072,
            classes: 1000,
            class_token: true,
            pool: Pool::Token,
            fc_norm: false,
            qkv_bias: true,
            position_grid: (14, 14),
            position_resampling: Resampling::Bicubic,
            dist_token: false,
            registers: 0,
            prefix_positions: 1,
            head_dist: false,
            layer_scale: false,
            patch_bias: true,
            norm_pre: false,
            final_norm: true,
            residual_post_norm: false,
            activation: crate::model::ops::Activation::Gelu,
            norm_eps: 1e-6,
            detection: None,
        })
    }

    fn settings(groups: u8) -> Settings {
        let groups = GroupCount::new(groups).unwrap();
        Settings { groups, row_groups: groups, preset: Preset::All, ..Settings::default() }
    }

    #[test]
    fn the_overhead_on_vit_b_is_the_papers() {
        let sites = vit_b_16();
        let layers = [SiteKind::Qkv, SiteKind::Proj, SiteKind::Fc1, SiteKind::Fc2];
        let bops: Vec<SiteBops> =
            of_network(&sites, &settings(16)).into_iter().filter(|(s, _)| layers.contains(&s.kind)).map(|(_, b)| b).collect();
        assert_eq!(bops.len(), 48);
        let (products, overhead): (u64, u64) = bops.iter().fold((0, 0), |(p, o), b| (p + b.product, o + b.overhead()));
        let percent = 100.0 * overhead as f64 / products as f64;
        assert!((percent - 3.30).abs() < 0.01, "{percent} %");
    }

    #[test]
    fn a_toy_layer_by_hand() {
        // 2 tokens of 3 channels to 4 outputs, 4 x 4 bits, 8 groups of 3 channels: at most 3 partial results.
        let layer = LayerShape { name: "toy".into(), outputs: 4 };
        let info = SiteInfo::of_layer(Site::outside(SiteKind::Head), 0, 2, 3, layer);
        let bops = |settings: &Settings| of_site(&info, std::slice::from_ref(&info), settings);
        let product = 2 * 3 * 4 * 4 * 4;
        let igq = SiteBops { product, ranges: 32 * 2 * 2 * 3, assignment: 32 * 5 * 3 * 8, sums: 32 * 2 * 4 * 2 };
        assert_eq!(bops(&settings(8)), igq);
        assert_eq!(igq.total(), 384 + 384 + 3840 + 512);
        let of = |method| bops(&Settings { method, ..settings(2) });
        assert_eq!(of(Method::Layer), SiteBops { product, ..SiteBops::default() });
        assert_eq!(of(Method::LayerDynamic), SiteBops { product, ranges: 384, ..SiteBops::default() });
        assert_eq!(of(Method::Contiguous), SiteBops { product, sums: 32 * 2 * 4, ..SiteBops::default() });
        assert_eq!(of(Method::Channel), SiteBops { product, sums: 32 * 2 * 4 * 2, ..SiteBops::default() });
        assert_eq!(of(Method::Float), SiteBops { product: 24 * 32 * 32, ..SiteBops::default() });
    }

    #[test]
    fn blocks_of_weights_split_the_sum_once_more() {
        let layer = LayerShape { name: "toy".into(), outputs: 10 };
        let info = SiteInfo::of_layer(Site::in_block(0, SiteKind::Fc1), 0, 5, 96, layer);
        let sums = |method, scales| {
            let settings = Settings { method, weight_scales: scales, ..settings(2) };
            of_site(&info, std::slice::from_ref(&info), &settings).sums / (32 * 5 * 10) + 1
        };
        // One range, 2 groups, 3 blocks of 32 channels, 6 of 16; alone, and with weights in 3 blocks, 4 blocks of 24, and 6 of 16.
        let each = [Method::Layer, Method::Igq, Method::BlockInt, Method::NvFp4];
        let with = |scales| each.map(|method| sums(method, scales));
        assert_eq!(with(WeightScales::Channel), [1, 2, 3, 6]);
        assert_eq!(with(WeightScales::Block(32)), [3, 6, 3, 6]);
        assert_eq!(with(WeightScales::Block(24)), [4, 8, 6, 8]);
        assert_eq!(with(WeightScales::NvFp4), [6, 12, 6, 6]);
    }

    #[test]
    fn products_of_activations_take_the_bits_of_both_and_rows_cost_no_sums() {
        let sites = vit_b_16();
        let mut settings = settings(8);
        settings.sbits = BitWidth::new(8).unwrap();
        let of = |kind| of_site(sites.iter().find(|s| s.site == Site::in_block(0, kind)).unwrap(), &sites, &settings);
        assert_eq!(of(SiteKind::Q).product, 12 * 197 * 197 * 64 * 4 * 4);
        assert_eq!(of(SiteKind::Attn).product, 12 * 197 * 197 * 64 * 8 * 4);
        assert_eq!(of(SiteKind::Attn).ranges, 32 * 12 * 197 * 197);
        assert_eq!((of(SiteKind::K).product, of(SiteKind::V).product), (0, 0));
        assert_eq!((of(SiteKind::Attn).sums, of(SiteKind::V).sums), (0, 0));
        assert_eq!(of(SiteKind::K).sums, 32 * 12 * 197 * 197 * 7);
        assert_eq!(of(SiteKind::K).sums, of(SiteKind::Q).sums);
    }
}
