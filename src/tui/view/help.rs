//! The help overlay: the key table of the present view, and a few words on what is seen.

use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::style::Style;
use ratatui::widgets::{Clear, Widget};

use crate::tui::app::{App, View};
use crate::tui::keymap;
use crate::tui::widget::{panel, put};

const fn words(view: View) -> &'static [&'static str] {
    match view {
        View::Overview => &[
            "Float against quantized for this picture, and every quantized operand (site).",
            "local dB: the tensor just before against just after its own quantizer.",
            "cum dB: the float run against the quantized run at the same place.",
            "RMSE/step: about 0.29 is plain rounding, more means clipping.",
            "alone KL: KL of the prediction when only this site is quantized; ! flips.",
            "Paste the path of a picture, or drop it on the terminal, to open it.",
        ],
        View::Groups => &[
            "Each bar is one channel, from its least to its largest value in this picture.",
            "Its colour and digit are its group: channels of one group share a quantizer.",
            "Groups are numbered by width: 0 is the narrowest. The quantizers are fixed;",
            "which channel takes which is decided anew for every picture: press c to see it.",
        ],
        View::Attention => &[
            "Rows of the softmax share quantizers too, grouped by their largest value.",
            "Left: the group of each query token. Right: where the token under the cursor looks.",
            "Attention within windows (Swin): the window of the token, at its place in the picture.",
        ],
        View::Budget => &[
            "More groups cost bit operations (BOPs) and lose less. Omega: KL of the prediction when",
            "only this site is quantized. The counts are the best ones within the bound.",
            "+1 step, -1 step: what one count more or fewer would gain or lose for each million",
            "BOPs. Omega is first estimated from gradients; X measures it instead.",
        ],
        View::Compare => &[
            "Every method at 4, 6 and 8 bits, with your other settings: on this picture, and on",
            "the evaluation set (set KL, share that agrees with float, top-1 and its interval).",
            "Below or beside: the pinned answer A against the present answer B.",
        ],
    }
}

pub fn draw(app: &App, scroll: u16, area: Rect, buf: &mut Buffer) {
    let mut lines: Vec<(String, String)> = words(app.view).iter().map(|w| (String::new(), (*w).to_string())).collect();
    lines.push((String::new(), String::new()));
    let bindings = keymap::BINDINGS.iter().filter(|b| keymap::applies(b, app.view));
    lines.extend(bindings.map(|b| (b.label.to_string(), b.help.to_string())));
    let width = 84.min(area.width);
    let height = (lines.len() as u16 + 2).min(area.height);
    let window = Rect { x: area.x + (area.width - width) / 2, y: area.y + (area.height - height) / 2, width, height };
    Clear.render(window.intersection(buf.area), buf);
    let inner = panel(buf, window, &format!("Help · {} · j/k scroll, any other key closes", app.view.title()), app.look);
    let most = (lines.len() as u16).saturating_sub(inner.height);
    for ((key, text), y) in lines.iter().skip(usize::from(scroll.min(most))).zip(0..inner.height) {
        put(buf, inner, 1, y, key, app.look.accent());
        put(buf, inner, if key.is_empty() { 1 } else { 11 }, y, text, Style::new());
    }
}
