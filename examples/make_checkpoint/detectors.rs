//! The detectors: their tensors and configurations in the names of transformers and of their authors.

use serde_json::{Value, json};

use super::{Body, Shapes, Variant};

/// Detection tokens of a YOLOS.
const TOKENS: usize = 100;

/// Width of the decoder of an RF-DETR.
const DECODER: usize = 256;
/// Groups of its queries, of which inference uses one.
const GROUPS: usize = 13;

impl Shapes {
    /// The tensors of a detector; whether the network is one.
    pub fn detector(&mut self, variant: &Variant) -> bool {
        match variant.body {
            Body::Yolos { depth, size, mid, .. } => self.yolos(variant, depth, size, mid),
            Body::RfDetr { image, layers, queries, masks, .. } => self.rf_detr(variant, image, (layers, queries), masks),
            Body::Rcnn { depths, heads, cascade } => self.rcnn(variant, depths, heads, cascade),
            Body::Vit { .. } | Body::Swin { .. } => return false,
        }
        true
    }

    /// A block in the names of transformers, given those of its two norms and of the two layers of its MLP.
    fn transformers_block(&mut self, name: &str, width: usize, [norm1, norm2, fc1, fc2]: [&str; 4]) {
        self.norm(&format!("{name}.{norm1}"), width);
        self.norm(&format!("{name}.{norm2}"), width);
        for part in ["attention.attention.query", "attention.attention.key", "attention.attention.value", "attention.output.dense"] {
            self.linear(&format!("{name}.{part}"), width, width);
        }
        self.linear(&format!("{name}.{fc1}"), 4 * width, width);
        self.linear(&format!("{name}.{fc2}"), width, 4 * width);
    }

    /// A detector in the names of its authors, with one group of queries of thirteen.
    fn rf_detr(&mut self, variant: &Variant, image: usize, (layers, queries): (usize, usize), masks: bool) {
        let (width, patch, d) = (variant.width, variant.patch, DECODER);
        let backbone = "backbone.0.encoder.encoder";
        self.put(&format!("{backbone}.embeddings.cls_token"), &[1, 1, width]);
        self.put(&format!("{backbone}.embeddings.position_embeddings"), &[1, 1 + (image / patch).pow(2), width]);
        self.put(&format!("{backbone}.embeddings.patch_embeddings.projection.weight"), &[width, 3, patch, patch]);
        self.put(&format!("{backbone}.embeddings.patch_embeddings.projection.bias"), &[width]);
        for block in 0..12 {
            let block = format!("{backbone}.encoder.layer.{block}");
            self.transformers_block(&block, width, ["norm1", "norm2", "mlp.fc1", "mlp.fc2"]);
            self.put(&format!("{block}.layer_scale1.lambda1"), &[width]);
            self.put(&format!("{block}.layer_scale2.lambda1"), &[width]);
        }
        self.norm(&format!("{backbone}.layernorm"), width);
        let mut conv = |name: String, outputs: usize, inputs: usize, size: usize| {
            let name = format!("backbone.0.projector.stages.0.0.{name}");
            self.put(&format!("{name}.conv.weight"), &[outputs, inputs, size, size]);
            self.norm(&format!("{name}.bn"), outputs);
        };
        conv("cv1".into(), d, 4 * width, 1);
        for pair in 0..3 {
            conv(format!("m.{pair}.cv1"), d / 2, d / 2, 3);
            conv(format!("m.{pair}.cv2"), d / 2, d / 2, 3);
        }
        conv("cv2".into(), d, 5 * d / 2, 1);
        self.norm("backbone.0.projector.stages.0.1", d);
        self.put("refpoint_embed.weight", &[GROUPS * queries, 4]);
        self.put("query_feat.weight", &[GROUPS * queries, d]);
        let boxes = |shapes: &mut Self, name: &str| {
            for (layer, outputs) in [d, d, 4].into_iter().enumerate() {
                shapes.linear(&format!("{name}.layers.{layer}"), outputs, d);
            }
        };
        self.linear("transformer.enc_output.0", d, d);
        self.norm("transformer.enc_output_norm.0", d);
        self.linear("transformer.enc_out_class_embed.0", variant.classes, d);
        boxes(self, "transformer.enc_out_bbox_embed.0");
        for layer in 0..layers {
            let name = |part: &str| format!("transformer.decoder.layers.{layer}.{part}");
            self.put(&name("self_attn.in_proj_weight"), &[3 * d, d]);
            self.put(&name("self_attn.in_proj_bias"), &[3 * d]);
            self.linear(&name("self_attn.out_proj"), d, d);
            self.linear(&name("cross_attn.sampling_offsets"), 16 * 2 * 2, d);
            self.linear(&name("cross_attn.attention_weights"), 16 * 2, d);
            self.linear(&name("cross_attn.value_proj"), d, d);
            self.linear(&name("cross_attn.output_proj"), d, d);
            self.linear(&name("linear1"), 2048, d);
            self.linear(&name("linear2"), d, 2048);
            for norm in ["norm1", "norm2", "norm3"] {
                self.norm(&name(norm), d);
            }
        }
        self.norm("transformer.decoder.norm", d);
        self.linear("transformer.decoder.ref_point_head.layers.0", d, 2 * d);
        self.linear("transformer.decoder.ref_point_head.layers.1", d, d);
        self.linear("class_embed", variant.classes, d);
        boxes(self, "bbox_embed");
        if !masks {
            return;
        }
        for block in 0..layers {
            let name = |part: &str| format!("segmentation_head.blocks.{block}.{part}");
            self.put(&name("dwconv.weight"), &[d, 1, 3, 3]);
            self.put(&name("dwconv.bias"), &[d]);
            self.norm(&name("norm"), d);
            self.linear(&name("pwconv1"), d, d);
        }
        self.put("segmentation_head.spatial_features_proj.weight", &[d, d, 1, 1]);
        self.put("segmentation_head.spatial_features_proj.bias", &[d]);
        self.norm("segmentation_head.query_features_block.norm_in", d);
        self.linear("segmentation_head.query_features_block.layers.0", 4 * d, d);
        self.linear("segmentation_head.query_features_block.layers.2", d, 4 * d);
        self.linear("segmentation_head.query_features_proj", d, d);
        self.put("segmentation_head.bias", &[1]);
    }

    /// A detector in the names of transformers.
    fn yolos(&mut self, variant: &Variant, depth: usize, size: (usize, usize), mid: bool) {
        let (width, patch) = (variant.width, variant.patch);
        let positions = 1 + (size.0 / patch) * (size.1 / patch) + TOKENS;
        self.put("vit.embeddings.cls_token", &[1, 1, width]);
        self.put("vit.embeddings.detection_tokens", &[1, TOKENS, width]);
        self.put("vit.embeddings.position_embeddings", &[1, positions, width]);
        self.put("vit.embeddings.patch_embeddings.projection.weight", &[width, 3, patch, patch]);
        self.put("vit.embeddings.patch_embeddings.projection.bias", &[width]);
        if mid {
            self.put("vit.encoder.mid_position_embeddings", &[depth - 1, 1, positions, width]);
        }
        for block in 0..depth {
            let parts = ["layernorm_before", "layernorm_after", "intermediate.dense", "output.dense"];
            self.transformers_block(&format!("vit.encoder.layer.{block}"), width, parts);
        }
        self.norm("vit.layernorm", width);
        for (name, outputs) in [("class_labels_classifier", variant.classes + 1), ("bbox_predictor", 4)] {
            self.linear(&format!("{name}.layers.0"), width, width);
            self.linear(&format!("{name}.layers.1"), width, width);
            self.linear(&format!("{name}.layers.2"), outputs, width);
        }
    }
}

/// `config.json` of a detector as transformers writes it; none of another network.
pub fn config(variant: &Variant) -> Option<Value> {
    match variant.body {
        Body::Yolos { depth, heads, size, mid } => Some(json!({
            "architectures": [variant.architecture],
            "model_type": "yolos",
            "hidden_size": variant.width,
            "num_hidden_layers": depth,
            "num_attention_heads": heads,
            "intermediate_size": 4 * variant.width,
            "image_size": [size.0, size.1],
            "patch_size": variant.patch,
            "num_channels": 3,
            "qkv_bias": true,
            "num_detection_tokens": TOKENS,
            "use_mid_position_embeddings": mid,
            "layer_norm_eps": 1e-12,
            "hidden_act": "gelu",
        })),
        Body::RfDetr { image, windows, layers, queries, masks } => {
            let mut config = json!({
                "architectures": [variant.architecture],
                "model_type": "rf_detr",
                "backbone_config": {
                    "model_type": "rf_detr_dinov2",
                    "hidden_size": variant.width,
                    "num_hidden_layers": 12,
                    "num_attention_heads": 6,
                    "image_size": image,
                    "patch_size": variant.patch,
                    "num_windows": windows,
                    "out_indices": [3, 6, 9, 12],
                },
                "d_model": DECODER,
                "decoder_layers": layers,
                "decoder_n_points": 2,
                "num_queries": queries,
                "group_detr": GROUPS,
            });
            if masks {
                config["intermediate_size"] = json!(4 * DECODER);
            }
            Some(config)
        }
        Body::Vit { .. } | Body::Swin { .. } | Body::Rcnn { .. } => None,
    }
}
