//! A block of a plain ViT: attention, of all tokens or within windows, and an MLP, with a tap at every operand.
//!
//! `B` pictures, `N` tokens, `D` width, `H` heads, `d = D/H` channels a head, `W` windows of `n` tokens.

use candle_core::{D, Tensor};

use crate::error::Result;
use crate::model::checkpoint::config::VitConfig;
use crate::model::checkpoint::weights::Weights;
use crate::model::graph::{Graph, GraphTap, Setting, Value};
use crate::model::ops::{Activation, Factors, Linear, Norm, residual, softmax};
use crate::model::site::{Site, SiteKind};
use crate::model::tap::Tap;

/// A layer norm over the channels of a token.
///
/// # Errors
/// When a tensor is missing or has another shape.
pub fn norm(weights: &Weights, name: &str, cfg: &VitConfig) -> Result<Norm> {
    Norm::new(weights, name, cfg.embed_dim, cfg.norm_eps)
}

#[derive(Debug)]
struct Attention {
    qkv: Linear,
    proj: Linear,
    dim: usize,
    heads: usize,
    block: u16,
}

impl Attention {
    fn new(weights: &Weights, name: &str, cfg: &VitConfig, block: u16) -> Result<Self> {
        let dim = cfg.embed_dim;
        let qkv_site = Site::in_block(block, SiteKind::Qkv);
        let proj_site = Site::in_block(block, SiteKind::Proj);
        Ok(Self {
            qkv: Linear::new(weights, &format!("{name}.qkv"), qkv_site, (3 * dim, dim), cfg.qkv_bias)?,
            proj: Linear::new(weights, &format!("{name}.proj"), proj_site, (dim, dim), true)?,
            dim,
            heads: cfg.heads,
            block,
        })
    }

    /// `(B, N, D)` to `(B, N, D)`; the tokens are those of `windows` windows, one behind the other, and only those of one see one another.
    fn forward(&self, x: Tensor, windows: usize, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, tokens, dim) = x.dims3()?;
        let (w, n) = (windows, tokens / windows);
        let head_dim = dim / self.heads;
        let site = |kind| Site::in_block(self.block, kind);
        let qkv = self.qkv.forward(x, tap)?; // (B, N, 3D)
        let mut operand = |index: usize, kind: SiteKind| -> Result<Tensor> {
            let part = qkv.narrow(D::Minus1, index * dim, dim)?.contiguous()?; // (B, N, D)
            let part = tap.activation(site(kind), part)?;
            Ok(part.reshape((b * w, n, self.heads, head_dim))?.transpose(1, 2)?) // (B W, H, n, d)
        };
        let q = operand(0, SiteKind::Q)?;
        let k = operand(1, SiteKind::K)?;
        let v = operand(2, SiteKind::V)?;
        let scale = 1.0 / f64::sqrt(head_dim as f64);
        let scores = tap.product((site(SiteKind::Q), site(SiteKind::K)), &q, &k.transpose(2, 3)?)?; // (B W, H, n, n)
        let attn = softmax(scores.reshape((b, w * self.heads, n, n))?, scale, None)?;
        let attn = tap.activation(site(SiteKind::Attn), attn)?.reshape((b * w, self.heads, n, n))?;
        let mixed = tap.product((site(SiteKind::Attn), site(SiteKind::V)), &attn, &v)?.transpose(1, 2)?.reshape((b, tokens, dim))?;
        self.proj.forward(mixed, tap)
    }
}

impl Attention {
    /// The same in a graph.
    fn draw(&self, graph: &mut Graph, x: Value, tokens: usize, tap: &mut dyn GraphTap) -> Result<Value> {
        let site = |kind| Site::in_block(self.block, kind);
        let (n, heads) = (tokens as i64, self.heads as i64);
        let qkv = self.qkv.draw(graph, x, tap)?;
        let parts = graph.parts(&qkv, -1, 3);
        let mut operands = Vec::with_capacity(3);
        for (part, kind) in parts.into_iter().zip([SiteKind::Q, SiteKind::K, SiteKind::V]) {
            let part = tap.activation(graph, site(kind), part)?;
            let part = graph.reshape(&part, &[1, n, heads, -1]);
            operands.push(graph.transpose(&part, if kind == SiteKind::K { &[0, 2, 3, 1] } else { &[0, 2, 1, 3] }));
        }
        let head_dim = self.dim / self.heads;
        let scale = graph.float((1.0 / f64::sqrt(head_dim as f64)) as f32);
        let scores = graph.op("MatMul", &[&operands[0], &operands[1]]);
        let scores = graph.op("Mul", &[&scores, &scale]);
        let attn = graph.op_with("Softmax", &[&scores], &[Setting::Int("axis", -1)]);
        let attn = tap.activation(graph, site(SiteKind::Attn), attn)?;
        let mixed = graph.op("MatMul", &[&attn, &operands[2]]);
        let mixed = graph.transpose(&mixed, &[0, 2, 1, 3]);
        let mixed = graph.reshape(&mixed, &[1, n, -1]);
        self.proj.draw(graph, mixed, tap)
    }
}

/// `x + gamma branch` in a graph.
fn draw_residual(graph: &mut Graph, x: &Value, branch: Value, gamma: Option<&Tensor>) -> Result<Value> {
    let branch = match gamma {
        Some(gamma) => {
            let gamma = graph.tensor(gamma)?;
            graph.op("Mul", &[&branch, &gamma])
        }
        None => branch,
    };
    Ok(graph.op("Add", &[x, &branch]))
}

/// A transformer block.
#[derive(Debug)]
pub struct Block {
    norm1: Norm,
    attn: Attention,
    ls1: Option<Tensor>, // (D)
    norm2: Norm,
    fc1: Linear,
    fc2: Linear,
    ls2: Option<Tensor>, // (D)
    activation: Activation,
    /// Norms stand behind attention and MLP, inside of the residual branch, and not before them.
    residual_post_norm: bool,
}

impl Block {
    /// Takes block number `block` of a checkpoint.
    ///
    /// # Errors
    /// When a tensor is missing or has another shape.
    pub fn new(weights: &Weights, cfg: &VitConfig, block: u16) -> Result<Self> {
        let name = |part: &str| format!("blocks.{block}.{part}");
        let (dim, hidden) = (cfg.embed_dim, cfg.mlp_dim);
        let scale = |part| cfg.layer_scale.then(|| weights.get(&name(part), &[dim])).transpose();
        let fc1_site = Site::in_block(block, SiteKind::Fc1);
        let fc2_site = Site::in_block(block, SiteKind::Fc2);
        Ok(Self {
            norm1: norm(weights, &name("norm1"), cfg)?,
            attn: Attention::new(weights, &name("attn"), cfg, block)?,
            ls1: scale("ls1.gamma")?,
            norm2: norm(weights, &name("norm2"), cfg)?,
            fc1: Linear::new(weights, &name("mlp.fc1"), fc1_site, (hidden, dim), true)?,
            fc2: Linear::new(weights, &name("mlp.fc2"), fc2_site, (dim, cfg.fc2_inputs()), true)?,
            ls2: scale("ls2.gamma")?,
            activation: cfg.activation,
            residual_post_norm: cfg.residual_post_norm,
        })
    }

    /// Its linear layers.
    #[must_use]
    pub const fn layers(&self) -> [&Linear; 4] {
        [&self.attn.qkv, &self.attn.proj, &self.fc1, &self.fc2]
    }

    /// `x + attention(norm(x))`, the first half of the block; `x + norm(attention(x))` where norms stand behind.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn attend(&self, x: &Tensor, windows: usize, tap: &mut dyn Tap) -> Result<Tensor> {
        let branch = if self.residual_post_norm {
            self.norm1.forward(&self.attn.forward(x.clone(), windows, tap)?)?
        } else {
            self.attn.forward(self.norm1.forward(x)?, windows, tap)?
        };
        residual(x, branch, self.ls1.as_ref())
    }

    /// `x + mlp(norm(x))`, the second half of the block; `x + norm(mlp(x))` where norms stand behind.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn mix(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let input = if self.residual_post_norm { x.clone() } else { self.norm2.forward(x)? };
        let hidden = self.activation.apply(self.fc1.forward(input, tap)?)?;
        let branch = self.fc2.forward(hidden, tap)?;
        let branch = if self.residual_post_norm { self.norm2.forward(&branch)? } else { branch };
        residual(x, branch, self.ls2.as_ref())
    }
}

impl Block {
    /// Both halves in a graph.
    ///
    /// # Errors
    /// When the tap refuses.
    pub fn draw(&self, graph: &mut Graph, x: &Value, tokens: usize, tap: &mut dyn GraphTap) -> Result<Value> {
        let before = |graph: &mut Graph, norm: &Norm, x: &Value| if self.residual_post_norm { Ok(x.clone()) } else { norm.draw(graph, x) };
        let behind = |graph: &mut Graph, norm: &Norm, x: Value| if self.residual_post_norm { norm.draw(graph, &x) } else { Ok(x) };
        let input = before(graph, &self.norm1, x)?;
        let branch = self.attn.draw(graph, input, tokens, tap)?;
        let branch = behind(graph, &self.norm1, branch)?;
        let x = draw_residual(graph, x, branch, self.ls1.as_ref())?;
        let input = before(graph, &self.norm2, &x)?;
        let hidden = self.fc1.draw(graph, input, tap)?;
        let hidden = self.activation.draw(graph, &hidden);
        let branch = self.fc2.draw(graph, hidden, tap)?;
        let branch = behind(graph, &self.norm2, branch)?;
        draw_residual(graph, &x, branch, self.ls2.as_ref())
    }
}

impl Block {
    /// Smooths the inputs of its layers that stand behind a norm; gives their number.
    ///
    /// # Errors
    /// When there are more or fewer factors than channels.
    pub fn smooth(&mut self, of: &Factors<'_>) -> Result<usize> {
        if self.residual_post_norm {
            return Ok(0);
        }
        let both = [self.attn.qkv.smooth(&mut self.norm1, of)?, self.fc1.smooth(&mut self.norm2, of)?];
        Ok(both.iter().filter(|&&done| done).count())
    }
}
