//! Detectors of regions on a Swin Transformer, in the names of mmdet 2.

use super::{Shapes, Variant};

/// Width of the pyramid, of the layers behind regions, and rows and columns of windows.
const PYRAMID: usize = 256;
const HIDDEN: usize = 1024;
const WINDOW: usize = 7;

impl Shapes {
    fn conv(&mut self, name: &str, outputs: usize, inputs: usize, size: usize) {
        self.put(&format!("{name}.weight"), &[outputs, inputs, size, size]);
        self.put(&format!("{name}.bias"), &[outputs]);
    }

    /// A Mask R-CNN, or its cascade.
    pub fn rcnn(&mut self, variant: &Variant, depths: &[usize], heads: &[usize], cascade: bool) {
        let (classes, d) = (variant.classes, PYRAMID);
        self.conv("backbone.patch_embed.proj", variant.width, 3, variant.patch);
        self.norm("backbone.patch_embed.norm", variant.width);
        for (stage, (&depth, &heads)) in depths.iter().zip(heads).enumerate() {
            let width = variant.width << stage;
            for block in 0..depth {
                let name = format!("backbone.layers.{stage}.blocks.{block}");
                self.block(&name, width);
                self.put(&format!("{name}.attn.relative_position_bias_table"), &[(2 * WINDOW - 1).pow(2), heads]);
            }
            if stage + 1 < depths.len() {
                self.norm(&format!("backbone.layers.{stage}.downsample.norm"), 4 * width);
                self.put(&format!("backbone.layers.{stage}.downsample.reduction.weight"), &[2 * width, 4 * width]);
            }
            self.norm(&format!("backbone.norm{stage}"), width);
            self.conv(&format!("neck.lateral_convs.{stage}.conv"), d, width, 1);
            self.conv(&format!("neck.fpn_convs.{stage}.conv"), d, d, 3);
        }
        self.conv("rpn_head.rpn_conv", d, d, 3);
        self.conv("rpn_head.rpn_cls", 3, d, 1);
        self.conv("rpn_head.rpn_reg", 12, d, 1);
        let stages: &[&str] = if cascade { &[".0", ".1", ".2"] } else { &[""] };
        for stage in stages {
            let head = format!("roi_head.bbox_head{stage}");
            self.linear(&format!("{head}.shared_fcs.0"), HIDDEN, 49 * d);
            for conv in (0..4).filter(|_| cascade) {
                self.put(&format!("{head}.shared_convs.{conv}.conv.weight"), &[d, d, 3, 3]);
                let norm = format!("{head}.shared_convs.{conv}.bn");
                self.norm(&norm, d);
                // A variance must not be negative: values of weights of norms are not.
                self.put(&format!("{norm}.running_mean"), &[d]);
                self.put(&format!("{norm}.running_var"), &[d]);
            }
            if !cascade {
                self.linear(&format!("{head}.shared_fcs.1"), HIDDEN, HIDDEN);
            }
            self.linear(&format!("{head}.fc_cls"), classes + 1, HIDDEN);
            self.linear(&format!("{head}.fc_reg"), 4 * classes, HIDDEN);
            let mask = format!("roi_head.mask_head{stage}");
            for conv in 0..4 {
                self.conv(&format!("{mask}.convs.{conv}.conv"), d, d, 3);
            }
            self.conv(&format!("{mask}.upsample"), d, d, 2);
            self.conv(&format!("{mask}.conv_logits"), classes, d, 1);
        }
    }
}
