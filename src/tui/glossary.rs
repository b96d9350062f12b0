//! What words on the screen mean, each in a line: the headers of columns and the terms of the field.

/// Words and what they mean.
pub const TERMS: &[(&str, &str)] = &[
    ("#", "number of the object, as it stands at its box"),
    ("+1 step", "KL that the next larger group count saves for each million bit operations"),
    ("-1 step", "KL that the next smaller group count adds for each million bit operations saved"),
    ("95 %", "Wilson interval of top-1 (or of agreement): the share on all images lies in it 19 times of 20"),
    ("A", "bits of activations: the inputs of products"),
    ("after", "the probability behind the quantizer"),
    ("agree", "share of images on which float and quantized run name the same class"),
    ("alone KL", "KL when only this site (and the weight behind it) is quantized; ! where that alone flips the class"),
    ("answer float", "probability of the final float class after this block, in the float run"),
    ("answer quant", "probability of the final float class after this block, in the quantized run"),
    ("before", "the probability in the quantized run before its quantizer"),
    ("bit operations", "multiply-adds times the bits of both operands; each group adds one sum and one scaling of its own"),
    ("bits", "bits of a value: 2^bits codes; float where nothing is rounded"),
    ("block", "the transformer block after which norm and head are applied"),
    ("BOPs", "bit operations: multiply-adds times the bits of both operands, with what groups add"),
    ("clipped", "share of values outside the bounds of their quantizer: they become its first or last code"),
    ("code", "the integer that is stored: value / step, rounded, plus the zero point"),
    ("codes", "how many of the 2^bits codes the values use"),
    ("cosine", "cosine of the angle between the site's values in the float and in the quantized run; 1 is the same direction"),
    ("cum dB", "cumulative SQNR: float run against quantized run at this site, errors of all sites before included"),
    ("eff W/A", "bits a value of weights and activations takes with its share of scales and zero points"),
    ("fate", "what became of the object: kept (IoU from 0.75), moved (from 0.5), relabelled, faded (half the threshold), lost, new"),
    ("float", "the run without quantization"),
    ("float %", "probability of the object's class in the float run"),
    ("g", "number of the group: 0 is the narrowest"),
    ("groups", "quantizers that the channels (or softmax rows) of this site share"),
    ("igq", "instance-aware grouping: quantizers are fixed, which channel takes which is decided for every image"),
    ("IoU", "intersection over union of the float and the quantized box: 1 is the same box"),
    ("key", "the token that the query looks at, as row,column of its patch"),
    ("KL", "Kullback-Leibler divergence from the float to the quantized class probabilities, in nats; 0 is no change"),
    ("lens KL", "KL of both runs if the final norm and the head were applied after this block"),
    ("local dB", "local SQNR: what this site's own quantizer does to the values that reach it"),
    ("logit lens", "the final norm and the head, applied after an earlier block: what the network would answer there"),
    ("lower", "lower bound of the quantizer: what lies below is clipped"),
    ("margin", "probability of the float class less the next; below 0 the class has flipped"),
    ("members", "channels of this image that take this quantizer"),
    ("method", "how values share quantizers; m goes to the next"),
    ("object", "class of the object in the float run, and in the quantized run where that is another"),
    ("omega", "perturbation: KL when only this site is quantized with this many groups"),
    ("quant %", "probability of the object's class in the quantized run"),
    ("quantized", "the run with weights and activations rounded to their codes"),
    ("RMSE/step", "error of a value against one step; rounding alone gives 0.29, clipping adds to it"),
    ("rows", "softmax rows of this image that take this quantizer"),
    ("S", "bits of the softmax output"),
    ("set KL", "mean KL on the images of the evaluation set that were seen"),
    ("site", "a tensor that is quantized: the input of a product, named by block and layer"),
    ("SQNR", "signal-to-quantization-noise ratio in dB: 6 dB more is half the error"),
    ("step", "distance of neighbouring codes: (upper - lower) / (2^bits - 1)"),
    ("this image", "what this row's settings answer for the image on the screen: its class, or objects that stay and new ones (+)"),
    ("top-1", "share of labelled images whose true class is the most likely one"),
    ("upper", "upper bound of the quantizer: what lies above is clipped"),
    ("W", "bits of weights"),
    ("weight dB", "SQNR of the weight behind this site"),
    ("what it is", "where in the network the site lies"),
    ("zero", "zero point: the code that stands for 0"),
];

/// What a word means.
#[must_use]
pub fn explain(word: &str) -> Option<&'static str> {
    let exact = TERMS.iter().find(|(term, _)| *term == word);
    exact.or_else(|| TERMS.iter().find(|(term, _)| term.eq_ignore_ascii_case(word))).map(|(_, meaning)| *meaning)
}

/// A word with what it means, as the line above the footer says it.
#[must_use]
pub fn line(word: &str) -> String {
    explain(word).map_or_else(|| word.to_string(), |meaning| format!("{word}: {meaning}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_word_stands_once_in_order_and_its_line_is_short() {
        let words: Vec<String> = TERMS.iter().map(|(term, _)| term.to_lowercase()).collect();
        assert!(words.windows(2).all(|pair| pair[0] < pair[1]), "{words:?}");
        for (term, meaning) in TERMS {
            assert!(term.len() + meaning.len() <= 130, "{term}");
        }
        assert_eq!(explain("kl"), explain("KL"));
    }
}
