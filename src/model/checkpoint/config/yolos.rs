//! Sizes of a YOLOS, a plain ViT that detects objects, and how they are told from a checkpoint.

use serde_json::{Value, json};

use super::vit::{Detection, Pool, VitConfig, activation, heads, norm_eps};
use super::{declared_blocks, declared_size, lookup, patch_embed};
use crate::error::{Error, Result};
use crate::model::checkpoint::Checkpoint;
use crate::model::checkpoint::names::Layout;
use crate::model::detection;
use crate::model::positions::Resampling;

/// Reads what a YOLOS is: a ViT whose detection tokens have the last positions.
///
/// # Errors
/// When the tensors are not those of a YOLOS, or contradict each other or the configuration.
pub fn infer(checkpoint: &Checkpoint, layout: Layout, notes: &mut Vec<String>) -> Result<VitConfig> {
    let weights = &checkpoint.weights;
    let depth = (0..usize::from(u16::MAX)).take_while(|i| weights.has(&format!("blocks.{i}.norm1.weight"))).count();
    declared_blocks(checkpoint, &format!("blocks.{depth}.norm1.weight"), &["num_hidden_layers"], &json!(depth))?;
    let mlp_dim = weights.shape("blocks.0.mlp.fc1.weight", 2)?[0];
    let (embed_dim, in_chans, patch_size) = patch_embed(weights)?;
    let tokens = weights.shape("det_token", 3)?[1];
    let last = weights.shape(detection::LAST_LAYER, 2)?[0];
    let stored = declared_size(checkpoint)?.ok_or_else(|| {
        let problem = "image_size is missing in config.json: it says how the position embeddings lie";
        Error::content(&checkpoint.name, problem, "put the config.json of the checkpoint beside it")
    })?;
    // What patches do not fill is cut off, as the convolution does it.
    let grid = (stored.0 / patch_size.0, stored.1 / patch_size.1);
    let positions = weights.shape("pos_embed", 3)?[1];
    if 1 + grid.0 * grid.1 + tokens != positions {
        let expected =
            format!("{} positions: class token, {}x{} patches, {tokens} detection tokens", 1 + grid.0 * grid.1 + tokens, grid.0, grid.1);
        return Err(weights.wrong("pos_embed", expected, format!("{positions} positions")));
    }
    let mid_positions = weights.has("mid_pos_embed");
    let claimed = lookup(checkpoint.config.as_ref(), "use_mid_position_embeddings").and_then(Value::as_bool);
    if claimed.is_some_and(|claimed| claimed != mid_positions) {
        let found = if mid_positions { "such embeddings in the file" } else { "no such embeddings in the file" };
        return Err(weights.wrong("mid_pos_embed", "what use_mid_position_embeddings of config.json says".into(), found.into()));
    }
    notes.push(format!(
        "from the tensors: {depth} blocks, width {embed_dim}, MLP {mlp_dim}, patch {}x{}, {tokens} detection tokens, {} classes and none, stored as {}",
        patch_size.0, patch_size.1, last.saturating_sub(1), weights.stored_as()
    ));
    Ok(VitConfig {
        image_size: (grid.0 * patch_size.0, grid.1 * patch_size.1),
        in_chans,
        patch_size,
        position_grid: grid,
        position_resampling: Resampling::Bicubic,
        embed_dim,
        depth,
        heads: heads(checkpoint, None, embed_dim, notes)?,
        mlp_dim,
        classes: last.saturating_sub(1),
        class_token: true,
        dist_token: false,
        registers: 0,
        prefix_positions: 1 + tokens,
        pool: Pool::Token,
        fc_norm: false,
        head_dist: false,
        qkv_bias: weights.has("blocks.0.attn.qkv.bias"),
        layer_scale: false,
        patch_bias: weights.has("patch_embed.proj.bias"),
        norm_pre: false,
        final_norm: true,
        residual_post_norm: false,
        activation: activation(checkpoint, None, false)?,
        norm_eps: norm_eps(checkpoint, None, layout, notes)?,
        detection: Some(Detection { tokens, mid_positions }),
    })
}
