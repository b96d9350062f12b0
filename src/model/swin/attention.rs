//! Attention within windows, with a bias for every offset between two tokens.

use candle_core::{D, Device, Tensor};

use crate::error::Result;
use crate::model::checkpoint::config::{SwinConfig, SwinPadding, SwinStage};
use crate::model::checkpoint::weights::Weights;
use crate::model::ops::{Linear, softmax};
use crate::model::site::{Site, SiteKind};
use crate::model::tap::Tap;
use crate::model::tokens::{TokenLayout, Windows};

/// What hides the tokens that a shift has brought into a window from the other side of the picture.
const HIDDEN: f32 = -100.0;

/// Where the tokens of a block's attention lie: windows, shifted in every second block.
pub(super) fn windows(cfg: &SwinConfig, stage: usize, block: usize) -> TokenLayout {
    let window = cfg.stages[stage].window;
    let windows = Windows::new((window, window), cfg.shift(stage, block));
    TokenLayout::grid(0, cfg.grid(stage)).in_windows(Windows { shifted_first: cfg.padding == SwinPadding::Timm, ..windows })
}

/// Attention within windows. Tokens that fill the last windows up are zeros behind the norm, and are seen like all others.
#[derive(Debug)]
pub(super) struct WindowAttention {
    pub qkv: Linear,
    pub proj: Linear,
    heads: usize,
    window: usize,
    table: Tensor, // ((2 window - 1)^2, H)
    places: Places,
}

/// What follows from the size of the input.
#[derive(Debug)]
struct Places {
    layout: TokenLayout,
    order: Tensor,   // (N) u32: for each token in the order of windows, its index row by row; one behind the last for padding
    reverse: Tensor, // the way back, without padding
    bias: Tensor,    // (1, W H, n, n): relative position bias, and the mask of shifted windows; (1, H, n, n) where nothing is shifted
}

impl Places {
    fn new(layout: TokenLayout, table: &Tensor, window: usize) -> Result<Self> {
        let (rows, columns) = layout.grid;
        let index = |token: usize| layout.place(token).map_or(rows * columns, |(row, column)| row * columns + column);
        let order: Vec<u32> = (0..layout.tokens()).map(|token| index(token) as u32).collect();
        let mut reverse = vec![0_u32; rows * columns];
        for (token, &place) in order.iter().enumerate() {
            if let Some(back) = reverse.get_mut(place as usize) {
                *back = token as u32;
            }
        }
        let bias = position_bias(table, window)?;
        let shifted = layout.windows.is_some_and(|windows| windows.shift != (0, 0));
        let bias = if shifted { bias.broadcast_add(&mask(&layout)?)?.flatten(0, 1)?.unsqueeze(0)? } else { bias };
        Ok(Self {
            layout,
            order: Tensor::new(order, &Device::Cpu)?,
            reverse: Tensor::new(reverse, &Device::Cpu)?,
            bias: bias.contiguous()?,
        })
    }
}

impl WindowAttention {
    pub fn new(
        weights: &Weights,
        name: &str,
        cfg: &SwinConfig,
        (stage, block): (usize, usize),
        site: &dyn Fn(SiteKind) -> Site,
    ) -> Result<Self> {
        let SwinStage { dim, heads, window, .. } = cfg.stages[stage];
        let table = weights.get(&format!("{name}.relative_position_bias_table"), &[(2 * window - 1).pow(2), heads])?;
        Ok(Self {
            qkv: Linear::new(weights, &format!("{name}.qkv"), site(SiteKind::Qkv), (3 * dim, dim), cfg.qkv_bias)?,
            proj: Linear::new(weights, &format!("{name}.proj"), site(SiteKind::Proj), (dim, dim), true)?,
            heads,
            window,
            places: Places::new(windows(cfg, stage, block), &table, window)?,
            table,
        })
    }

    /// Takes tokens that lie otherwise.
    pub fn over(&mut self, layout: TokenLayout) -> Result<()> {
        self.places = Places::new(layout, &self.table, self.window)?;
        Ok(())
    }

    /// `(B, N, D)` to `(B, N, D)`, both row by row.
    pub fn forward(&self, x: &Tensor, tap: &mut dyn Tap) -> Result<Tensor> {
        let (b, _, dim) = x.dims3()?;
        let Places { layout, order, reverse, bias } = &self.places;
        let (w, h, n) = (layout.window_count(), self.heads, layout.window_tokens());
        let head_dim = dim / h;
        let at = |kind| Site { kind, ..self.qkv.site };
        let x = if layout.padding() > 0 { x.pad_with_zeros(1, 0, 1)? } else { x.clone() };
        let qkv = self.qkv.forward(x.index_select(order, 1)?, tap)?; // (B, N, 3D)
        let mut operand = |index: usize, kind: SiteKind| -> Result<Tensor> {
            let part = qkv.narrow(D::Minus1, index * dim, dim)?.contiguous()?; // (B, N, D)
            let part = tap.activation(at(kind), part)?;
            Ok(part.reshape((b * w, n, h, head_dim))?.transpose(1, 2)?) // (B W, H, n, d)
        };
        let q = operand(0, SiteKind::Q)?;
        let k = operand(1, SiteKind::K)?;
        let v = operand(2, SiteKind::V)?;
        let scale = 1.0 / f64::sqrt(head_dim as f64);
        let scores = tap.product((at(SiteKind::Q), at(SiteKind::K)), &q, &k.transpose(2, 3)?)?; // (B W, H, n, n)
        let scores = if bias.dim(1)? == h { scores } else { scores.reshape((b, w * h, n, n))? };
        let attn = softmax(scores, scale, Some(bias))?.reshape((b, w * h, n, n))?;
        let attn = tap.activation(at(SiteKind::Attn), attn)?;
        let mixed = tap.product((at(SiteKind::Attn), at(SiteKind::V)), &attn.reshape((b * w, h, n, n))?, &v)?;
        let mixed = mixed.transpose(1, 2)?.reshape((b, w * n, dim))?;
        Ok(self.proj.forward(mixed, tap)?.index_select(reverse, 1)?)
    }
}

/// The bias between all tokens of a window, `(1, H, n, n)`, from the table of offsets `((2 window - 1)^2, H)`.
fn position_bias(table: &Tensor, window: usize) -> Result<Tensor> {
    let n = window * window;
    let offset = |from: usize, to: usize| from + window - 1 - to;
    let index = |q: usize, k: usize| offset(q / window, k / window) * (2 * window - 1) + offset(q % window, k % window);
    let indices: Vec<u32> = (0..n * n).map(|pair| index(pair / n, pair % n) as u32).collect();
    let bias = table.index_select(&Tensor::new(indices, &Device::Cpu)?, 0)?;
    Ok(bias.reshape((n, n, ()))?.permute((2, 0, 1))?.unsqueeze(0)?)
}

/// `(W, 1, n, n)`: zero where two tokens of a window are neighbours in the picture too, [`HIDDEN`] where only the shift made them so.
fn mask(layout: &TokenLayout) -> Result<Tensor> {
    let (n, count) = (layout.window_tokens(), layout.window_count());
    let hidden = |query: usize, key: usize| if layout.is_wrapped(query) == layout.is_wrapped(key) { 0.0 } else { HIDDEN };
    let values: Vec<f32> = (0..count * n * n).map(|i| hidden(i / n, i / (n * n) * n + i % n)).collect();
    Ok(Tensor::from_vec(values, (count, 1, n, n), &Device::Cpu)?)
}
