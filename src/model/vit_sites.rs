//! The sites of a plain ViT, in the order of the forward pass.

use crate::model::checkpoint::config::VitConfig;
use crate::model::detection;
use crate::model::network::{LayerShape, SiteInfo};
use crate::model::site::{Site, SiteKind};
use crate::model::tokens::TokenLayout;

/// The sites of the patch embedding and of the first `depth` blocks; the tokens of a block lie as `layout` says.
pub fn of_backbone(cfg: &VitConfig, depth: usize, layout: impl Fn(usize) -> TokenLayout) -> Vec<SiteInfo> {
    let dim = cfg.embed_dim;
    let layer = |name: String, outputs| LayerShape { name, outputs };
    let patches = TokenLayout::grid(0, cfg.grid());
    let pixels = cfg.in_chans * cfg.patch_size.0 * cfg.patch_size.1;
    let patch = SiteInfo::of_layer(Site::outside(SiteKind::Patch), 0, patches.tokens(), pixels, layer("patch_embed.proj".into(), dim));
    let mut sites = vec![patch.over(patches)];
    for block in 0..depth {
        let (step, all) = (1 + 2 * block, layout(block));
        let site = |kind| Site::in_block(u16::try_from(block).unwrap_or(u16::MAX), kind);
        let linear = |kind, step, channels, part: &str, outputs| {
            SiteInfo::of_layer(site(kind), step, all.tokens(), channels, layer(format!("blocks.{block}.{part}"), outputs)).over(all)
        };
        sites.push(linear(SiteKind::Qkv, step, dim, "attn.qkv", 3 * dim));
        sites.extend(SiteInfo::of_attention(site, step, all, dim, cfg.heads));
        sites.push(linear(SiteKind::Proj, step, dim, "attn.proj", dim));
        sites.push(linear(SiteKind::Fc1, step + 1, dim, "mlp.fc1", cfg.mlp_dim));
        sites.push(linear(SiteKind::Fc2, step + 1, cfg.fc2_inputs(), "mlp.fc2", dim));
    }
    sites
}

/// The sites of a plain ViT, from its configuration alone.
#[must_use]
pub fn sites(cfg: &VitConfig) -> Vec<SiteInfo> {
    let (dim, all) = (cfg.embed_dim, TokenLayout::grid(cfg.prefix_tokens(), cfg.grid()));
    let mut sites = of_backbone(cfg, cfg.depth, |_| all);
    if let Some(detection) = cfg.detection {
        sites.extend(detection::sites(1 + 2 * cfg.depth, dim, detection.tokens, cfg.classes));
        return sites;
    }
    let mut head = |kind: SiteKind, channels| {
        let layer = LayerShape { name: kind.name().into(), outputs: cfg.classes };
        sites.push(SiteInfo::of_layer(Site::outside(kind), 1 + 2 * cfg.depth, 1, channels, layer));
    };
    head(SiteKind::Head, cfg.head_dim());
    if cfg.head_dist {
        head(SiteKind::HeadDist, dim);
    }
    sites
}
