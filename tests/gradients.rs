//! The gradient of the logits at every site of every network, against finite differences: what a Fisher estimate stands on.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use candle_core::{DType, Tensor, Var};
use common::{golden, tensors};
use igq::Result;
use igq::model::{Model, Site, Tap, forward};

/// Adds to the operand of every site: variables of zeros, or a nudge along a fixed direction at one of them.
struct Nudge {
    vars: Vec<(Site, Var)>,
    nudged: Option<(Site, f64)>,
}

/// A fixed direction of the shape of `x`.
fn direction(x: &Tensor) -> Tensor {
    let values: Vec<f32> = (0..x.elem_count()).map(|i| ((i * 7919 % 101) as f32 / 50.0 - 1.0).powi(3)).collect();
    Tensor::from_vec(values, x.dims(), x.device()).unwrap()
}

impl Tap for Nudge {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        Ok(match self.nudged {
            None => {
                let var = Var::zeros(x.dims(), DType::F32, x.device())?;
                let sum = (x + var.as_tensor())?;
                self.vars.push((site, var));
                sum
            }
            Some((nudged, by)) if nudged == site => (&x + (direction(&x) * by)?)?,
            Some(_) => x,
        })
    }
}

#[test]
fn gradients_are_those_of_finite_differences() {
    for name in ["timm_vit", "timm_deit_distilled", "timm_dinov2_reg4", "hf_dinov2", "timm_vit_avgpool_fcnorm", "timm_swin"] {
        let model = Model::open(golden(name).to_str().unwrap()).unwrap();
        let pixels = tensors(golden(&format!("{name}/expected.safetensors")))["input"].clone();
        let loss = |nudged| {
            let mut tap = Nudge { vars: Vec::new(), nudged };
            let logits = forward(model.network(), &pixels, &mut tap).unwrap().classes().unwrap();
            ((&logits * direction(&logits)).unwrap().sum_all().unwrap(), tap.vars)
        };
        let (whole, vars) = loss(None);
        let gradients = whole.backward().unwrap();
        assert_eq!(vars.len(), model.sites().len());
        for (site, var) in vars {
            let gradient = gradients.get(&var).unwrap_or_else(|| panic!("{name} {site} has no gradient"));
            let slope = (gradient * direction(&var)).unwrap().sum_all().unwrap().to_scalar::<f32>().unwrap();
            let at = |by| f64::from(loss(Some((site, by))).0.to_scalar::<f32>().unwrap());
            let step = 2e-3;
            let expected = (at(step) - at(-step)) / (2.0 * step);
            let error = (f64::from(slope) - expected).abs();
            assert!(error < 0.02 * expected.abs() + 2e-3, "{name} {site}: gradient {slope}, differences {expected}");
        }
    }
}
