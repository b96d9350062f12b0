//! What the rest of igq may ask of any network: its steps, its sites, its weights. A forward pass is a row of steps, so it can start in
//! the middle from the residual stream that an earlier pass left at a boundary.

use std::sync::Arc;

use candle_core::Tensor;

use crate::error::{Error, Result};
use crate::model::graph::{Graph, GraphTap, Value};
use crate::model::kernels::Weight;
use crate::model::neighbourhood::Neighbourhoods;
use crate::model::ops::Factors;
use crate::model::output::Output;
use crate::model::site::{Site, SiteKind};
use crate::model::stream::Stream;
use crate::model::tap::Tap;
use crate::model::tokens::TokenLayout;

/// The linear layer behind a site.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerShape {
    /// Name of the layer in the checkpoint, such as `blocks.3.mlp.fc2`.
    pub name: String,
    /// Output channels, `C_out`.
    pub outputs: usize,
}

/// The right operand of a product whose left operand is a site.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RightOperand {
    /// The weight of the site's layer.
    Weight,
    /// Another site, whose groups are over the inner dimension too (keys).
    Inner(Site),
    /// Another site, whose groups are over the columns of the result (values).
    Columns(Site),
}

/// The matrix products `(M x K) (K x P)` of which a site is the left operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Product {
    /// How many there are for one picture: heads and windows.
    pub count: usize,
    /// `M`
    pub rows: usize,
    /// `K`
    pub inner: usize,
    /// `P`
    pub columns: usize,
    /// What it is multiplied with.
    pub right: RightOperand,
}

/// One quantized operand of a network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SiteInfo {
    /// Its address.
    pub site: Site,
    /// The step of the network that holds it.
    pub step: usize,
    /// Tokens of one picture, `N`.
    pub tokens: usize,
    /// What is grouped: channels, or for the softmax rows (`H N`, in the order of [`TokenLayout::softmax_row`]).
    pub channels: usize,
    /// Where its tokens lie.
    pub layout: TokenLayout,
    /// Heads that share the operand; 1 for linear layers.
    pub heads: usize,
    /// The linear layer whose input the site is; `None` for operands of matrix products.
    pub layer: Option<LayerShape>,
    /// The neighbourhoods that its layer sees, where that is a convolution over more than one token.
    pub near: Option<Neighbourhoods>,
    /// The products whose left operand it is; `None` for keys and values, which are right operands.
    pub product: Option<Product>,
}

impl SiteInfo {
    /// The input `(tokens, channels)` of a linear layer; the tokens lie nowhere until [`Self::over`] says where.
    #[must_use]
    pub fn of_layer(site: Site, step: usize, tokens: usize, channels: usize, layer: LayerShape) -> Self {
        let product = Product { count: 1, rows: tokens, inner: channels, columns: layer.outputs, right: RightOperand::Weight };
        let layout = TokenLayout::grid(tokens, (0, 0));
        Self { site, step, tokens, channels, layout, heads: 1, layer: Some(layer), near: None, product: Some(product) }
    }

    /// The same with tokens that lie as `layout` says.
    #[must_use]
    pub fn over(self, layout: TokenLayout) -> Self {
        Self { layout, ..self }
    }

    /// The operands of an attention whose tokens lie as `layout` says, and look at themselves or at others: queries, keys, values, softmax.
    #[must_use]
    pub fn of_attention(site: impl Fn(SiteKind) -> Site, step: usize, layout: TokenLayout, dim: usize, heads: usize) -> [Self; 4] {
        let (keys, n, head_dim) = (layout.keys(), layout.window_tokens(), dim / heads);
        let operand = |kind, layout: TokenLayout, channels, product| {
            let (site, tokens) = (site(kind), layout.tokens());
            Self { site, step, tokens, channels, layout, heads, layer: None, near: None, product }
        };
        let (count, seen) = (heads * layout.window_count(), layout.seen());
        let product = |inner, columns, right| Some(Product { count, rows: n, inner, columns, right });
        [
            operand(SiteKind::Q, layout, dim, product(head_dim, seen, RightOperand::Inner(site(SiteKind::K)))),
            operand(SiteKind::K, keys, dim, None),
            operand(SiteKind::V, keys, dim, None),
            operand(SiteKind::Attn, layout, heads * layout.tokens(), product(seen, head_dim, RightOperand::Columns(site(SiteKind::V)))),
        ]
    }
}

/// A vision transformer as a row of steps.
pub trait Network: Send + Sync {
    /// Number of steps: embedding, two halves of every block (attention, MLP), every merging of tokens, classifier.
    fn steps(&self) -> usize;

    /// Runs one step. Step 0 takes pixels `(B, C, height, width)`, the last gives what [`Self::output`] reads; in between is the residual stream.
    ///
    /// # Errors
    /// When the input has another shape, or the tap refuses.
    fn step(&self, index: usize, stream: &Stream, tap: &mut dyn Tap) -> Result<Stream>;

    /// What the last step's tensor says: of a classifier logits `(B, K)`.
    ///
    /// # Errors
    /// When it has another shape.
    fn output(&self, last: &Stream) -> Result<Output> {
        Output::of_classes(last)
    }

    /// The step that asks a tap for the proposals of a first stage; none where there is no such stage.
    fn branch(&self) -> Option<usize> {
        None
    }

    /// Takes another input size, in rows and columns of pixels, where the network can; whether it does.
    ///
    /// # Errors
    /// When the size is none that patches fill.
    fn resize(&mut self, _size: (usize, usize)) -> Result<bool> {
        Ok(false)
    }

    /// All sites, in the order in which a forward pass meets them.
    fn sites(&self) -> Vec<SiteInfo>;

    /// The float weight `(C_out, C)` of the layer whose input is `site`.
    fn weight(&self, site: Site) -> Option<&Arc<Weight>>;

    /// Divides the inputs of layers that come from a norm by factors, which norm and weight absorb; gives the number of layers. The outputs
    /// stay, within rounding.
    ///
    /// # Errors
    /// When there are more or fewer factors than channels.
    fn smooth(&mut self, of: &Factors<'_>) -> Result<usize>;

    /// How the tokens of the patch embedding lie over the picture.
    fn tokens(&self) -> TokenLayout;

    /// Draws the same operations into a graph, for a batch of one picture; gives its logits `(1, K)`.
    ///
    /// # Errors
    /// When the tap refuses, or the network cannot be drawn.
    fn draw(&self, _graph: &mut Graph, _pixels: &Value, _tap: &mut dyn GraphTap) -> Result<Value> {
        let found = "one with windows or a decoder";
        let expected = "a plain ViT (ViT, DeiT, DINOv2): windows and decoders are not drawn yet; the quantized weights of every network can be exported";
        Err(Error::setting("network", found, expected))
    }

    /// How the tokens of a site lie over the picture.
    fn layout(&self, site: Site) -> TokenLayout {
        self.sites().into_iter().find(|info| info.site == site).map_or(self.tokens(), |info| info.layout)
    }
}

/// Runs a whole forward pass on pixels `(B, C, height, width)`.
///
/// # Errors
/// As [`Network::step`].
pub fn forward(network: &dyn Network, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Output> {
    forward_from(network, 0, &pixels.clone().into(), tap)
}

/// Runs the steps from `first` on, from the residual stream at that boundary.
///
/// # Errors
/// As [`Network::step`]; when the logits are not finite, naming the first site where that happened.
pub fn forward_from(network: &dyn Network, first: usize, start: &Stream, tap: &mut dyn Tap) -> Result<Output> {
    pass(network, first, start, tap, |_| ())
}

/// Runs the steps from `first` on and shows the input of each; behind them those of the own proposals, where others were pinned.
fn pass(network: &dyn Network, first: usize, start: &Stream, tap: &mut dyn Tap, mut boundary: impl FnMut(&Stream)) -> Result<Output> {
    let (mut x, mut at) = (start.clone(), None);
    for index in first..network.steps() {
        tap.checkpoint()?;
        boundary(&x);
        if network.branch() == Some(index) {
            at = Some((index, x.clone()));
        }
        x = network.step(index, &x, tap)?;
    }
    let mut output = network.output(&x)?;
    require_finite(network, first, start, tap, &output)?;
    if let Some((branch, mut x)) = at.filter(|_| tap.frees()) {
        for index in branch..network.steps() {
            tap.checkpoint()?;
            x = network.step(index, &x, tap)?;
        }
        output.free = Some(Box::new(network.output(&x)?));
    }
    Ok(output)
}

/// Whether every value is finite: a sum of NaN or infinity is not.
fn is_finite(x: &Tensor) -> Result<bool> {
    let sum = x.sum_all()?.to_scalar::<f32>()?;
    Ok(sum.is_finite() || x.flatten_all()?.to_vec1::<f32>()?.iter().all(|v| v.is_finite()))
}

/// Looks for the first site whose operand is not finite, where logits are not: the pass once more, watched.
fn require_finite(network: &dyn Network, first: usize, start: &Stream, tap: &mut dyn Tap, output: &Output) -> Result<()> {
    if is_finite(&output.logits)? {
        return Ok(());
    }
    let mut watch = Watch(tap);
    let mut x = start.clone();
    for index in first..network.steps() {
        x = network.step(index, &x, &mut watch)?;
    }
    Err(not_finite("the logits"))
}

fn not_finite(what: &str) -> Error {
    let problem = format!("{what} hold NaN or infinite values: the activations overflow float32");
    Error::content(
        "this run",
        problem,
        "check the checkpoint and the preprocessing; `igq verify` compares the float logits with a reference",
    )
}

/// Ends a pass at the first operand that is not finite.
struct Watch<'t>(&'t mut dyn Tap);

impl Tap for Watch<'_> {
    fn activation(&mut self, site: Site, x: Tensor) -> Result<Tensor> {
        if !is_finite(&x)? {
            return Err(not_finite(&format!("the operands at {site}")));
        }
        self.0.activation(site, x)
    }

    fn weight(&mut self, site: Site, weight: &Arc<Weight>) -> Result<Arc<Weight>> {
        self.0.weight(site, weight)
    }

    fn layer(&mut self, site: Site, x: &Tensor, weight: &Arc<Weight>, bias: Option<&Tensor>) -> Result<Tensor> {
        self.0.layer(site, x, weight, bias)
    }

    fn product(&mut self, sites: (Site, Site), left: &Tensor, right: &Tensor) -> Result<Tensor> {
        self.0.product(sites, left, right)
    }

    fn proposals(&mut self, chosen: Tensor) -> Result<Tensor> {
        self.0.proposals(chosen)
    }

    fn objects(&mut self, found: Tensor) -> Result<Option<Tensor>> {
        self.0.objects(found)
    }
}

/// What a pass says and the input of every step, from which [`forward_from`] can go on.
#[derive(Debug, Clone)]
pub struct Trace {
    /// Input of each step; entry 0 is the pixels.
    pub boundaries: Vec<Stream>,
    /// What the last step said.
    pub output: Output,
}

/// Runs a whole forward pass and keeps the residual stream at every boundary.
///
/// # Errors
/// As [`Network::step`].
pub fn trace(network: &dyn Network, pixels: &Tensor, tap: &mut dyn Tap) -> Result<Trace> {
    trace_from(network, 0, &pixels.clone().into(), tap)
}

/// Runs the steps from `first` on, from the residual stream at that boundary, and keeps it at every boundary from there on: entry 0 is
/// `start`.
///
/// # Errors
/// As [`Network::step`].
pub fn trace_from(network: &dyn Network, first: usize, start: &Stream, tap: &mut dyn Tap) -> Result<Trace> {
    let mut boundaries = Vec::with_capacity(network.steps());
    let output = pass(network, first, start, tap, |x| boundaries.push(x.clone()))?;
    Ok(Trace { boundaries, output })
}
