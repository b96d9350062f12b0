//! Float parity with timm on its own checkpoints, logits and every operand, within 1e-4.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::Tensor;
use common::{difference, edited, golden, tensors};
use igq::model::{Identity, Model, Recorder, SiteKind, forward, forward_from, trace};
use igq::progress::Cancel;
use igq::quant::Settings;
use igq::session::{Options, Session};

/// Float logits `(B, K)`.
fn logits(model: &Model, input: &Tensor) -> Tensor {
    forward(model.network(), input, &mut Identity).unwrap().classes().unwrap()
}

/// Largest difference between the logits of the model in `folder` and those of the library that wrote `name`.
fn logits_differ(folder: &Path, name: &str) -> f32 {
    let model = Model::open(folder.to_str().unwrap()).unwrap();
    let expected = tensors(golden(&format!("{name}/expected.safetensors")));
    difference(&logits(&model, &expected["input"]), &expected["logits"])
}

#[test]
fn logits_of_every_layout() {
    let mut seen = 0;
    for entry in fs::read_dir(golden("")).unwrap() {
        let folder = entry.unwrap().path();
        let name = folder.file_name().unwrap().to_str().unwrap();
        let worst = logits_differ(&folder, name);
        eprintln!("{name}: logits differ by {worst}");
        assert!(worst < 1e-4, "{name}: logits differ by {worst}");
        seen += 1;
    }
    assert_eq!(seen, 14, "all golden folders were there");
}

fn renamed(name: &str, rename: impl Fn(&str) -> String) -> tempfile::TempDir {
    let copy = edited(name, |tensors| tensors.into_iter().map(|(key, tensor)| (rename(&key), tensor)).collect());
    let old = tensors(golden(&format!("{name}/model.safetensors")));
    let new = tensors(copy.path().join("model.safetensors"));
    assert!(new.len() == old.len() && new.keys().any(|key| !old.contains_key(key)), "the copy has other names");
    copy
}

/// The names that transformers 5 uses in memory; it saves with those of version 4, which the golden files have.
fn version_5(name: &str, key: &str) -> String {
    let rules: &[(&str, &str)] = &[
        (".attention.attention.query.", ".attention.q_proj."),
        (".attention.attention.key.", ".attention.k_proj."),
        (".attention.attention.value.", ".attention.v_proj."),
        (".attention.self.query.", ".attention.q_proj."),
        (".attention.self.key.", ".attention.k_proj."),
        (".attention.self.value.", ".attention.v_proj."),
        (".attention.self.relative_position_bias_table", ".attention.relative_position_bias.relative_position_bias_table"),
        (".attention.output.dense.", ".attention.o_proj."),
        (".intermediate.dense.", ".mlp.fc1."),
        (".output.dense.", ".mlp.fc2."),
    ];
    let key = rules.iter().fold(key.to_string(), |key, (four, five)| key.replace(four, five));
    if matches!(name, "hf_dinov2" | "hf_swin") { key } else { key.replace(".encoder.layer.", ".layers.") }
}

#[test]
fn logits_with_the_names_of_transformers_5() {
    for name in ["hf_vit", "hf_deit_teacher", "hf_dinov2", "hf_swin"] {
        let copy = renamed(name, |key| version_5(name, key));
        assert_eq!(logits_differ(copy.path(), name), logits_differ(&golden(name), name), "{name}");
    }
}

#[test]
fn logits_with_and_without_prefixes() {
    for name in ["hf_vit", "hf_deit_teacher", "hf_dinov2", "hf_swin"] {
        let bare =
            renamed(name, |key| ["vit.", "deit.", "dinov2.", "swin."].iter().fold(key.to_string(), |key, prefix| key.replace(prefix, "")));
        assert_eq!(logits_differ(bare.path(), name), logits_differ(&golden(name), name), "{name}");
    }
    for name in ["timm_vit", "timm_deit_distilled", "timm_dinov2_reg4", "timm_vit_avgpool_fcnorm", "timm_swin"] {
        for prefix in ["timm_model.", "model.", "module.model."] {
            let wrapped = renamed(name, |key| format!("{prefix}{key}"));
            assert_eq!(logits_differ(wrapped.path(), name), logits_differ(&golden(name), name), "{prefix}{name}");
        }
    }
}

/// The first Swin checkpoints: a merging at the end of a stage, the classifier one less deep, tables and masks beside the weights.
#[test]
fn logits_of_a_swin_as_it_was_first_published() {
    let copy = renamed("timm_swin", |key| key.replace("layers.1.downsample.", "layers.0.downsample.").replace("head.fc.", "head."));
    let file = copy.path().join("model.safetensors");
    let mut with_buffers = tensors(&file);
    let buffer = |dtype| Tensor::zeros((16, 16), dtype, &candle_core::Device::Cpu).unwrap();
    with_buffers.insert("layers.0.blocks.1.attn_mask".into(), buffer(candle_core::DType::F32));
    with_buffers.insert("layers.0.blocks.1.attn.relative_position_index".into(), buffer(candle_core::DType::I64));
    candle_core::safetensors::save(&with_buffers, &file).unwrap();
    assert_eq!(logits_differ(copy.path(), "timm_swin"), logits_differ(&golden("timm_swin"), "timm_swin"));
}

#[test]
fn half_precision_is_read_as_the_values_it_holds() {
    use candle_core::DType::{BF16, F16, F32, F64};
    for (half, shown) in [(F16, "f16"), (BF16, "bf16"), (F64, "f64")] {
        let cast = |to: &[candle_core::DType]| {
            let cast = |tensor: Tensor| to.iter().fold(tensor, |t, dtype| t.to_dtype(*dtype).unwrap());
            edited("hf_vit", |tensors| tensors.into_iter().map(|(key, tensor)| (key, cast(tensor))).collect())
        };
        let (stored, rounded) = (cast(&[half]), cast(&[half, F32]));
        assert_eq!(logits_differ(stored.path(), "hf_vit"), logits_differ(rounded.path(), "hf_vit"));
        let notes = Model::open(stored.path().to_str().unwrap()).unwrap().notes;
        assert!(notes.iter().any(|note| note.ends_with(&format!("stored as {shown}"))), "{notes:?}");
    }
}

#[test]
fn a_distilled_model_has_a_site_for_each_head() {
    for name in ["timm_deit_distilled", "hf_deit_teacher"] {
        let model = Model::open(golden(name).to_str().unwrap()).unwrap();
        let mut heads = HashMap::new();
        let mut recorder = Recorder(|site: igq::model::Site, x: &Tensor| {
            heads.insert(site.to_string(), x.dims().to_vec());
            Ok(())
        });
        forward(model.network(), &tensors(golden(&format!("{name}/expected.safetensors")))["input"], &mut recorder).unwrap();
        assert_eq!((&heads["head"], &heads["head_dist"]), (&vec![2, 1, 48], &vec![2, 1, 48]));
        let info = model.site("head_dist".parse().unwrap()).unwrap();
        assert_eq!((info.channels, info.layer.as_ref().unwrap().outputs, info.step), (48, 7, model.network().steps() - 1));
        assert_eq!(model.network().weight(info.site).unwrap().tensor().unwrap().dims(), [7, 48]);
    }
}

/// DINOv2 with registers as transformers writes it: names, a position for the class token but none for registers, a head of twice the
/// width. Made from timm's by a class position of zero and a head that ignores the mean of the patches.
#[test]
fn logits_with_registers_in_the_names_of_transformers() {
    let copy = edited("timm_dinov2_reg4", |timm| {
        let zeros = |shape: &[usize]| Tensor::zeros(shape, candle_core::DType::F32, &candle_core::Device::Cpu).unwrap();
        let mut hf = HashMap::from([("dinov2_with_registers.embeddings.mask_token".to_string(), zeros(&[1, 48]))]);
        for (key, tensor) in timm {
            let tensor = match key.as_str() {
                "pos_embed" => Tensor::cat(&[&zeros(&[1, 1, 48]), &tensor], 1).unwrap(),
                "head.weight" => Tensor::cat(&[&tensor, &zeros(&[7, 48])], 1).unwrap(),
                _ => tensor,
            };
            if let Some((block, part)) = key.split_once(".attn.qkv.") {
                for (name, third) in ["query", "key", "value"].iter().zip(tensor.chunk(3, 0).unwrap()) {
                    hf.insert(format!("{block}.attention.attention.{name}.{part}"), third.contiguous().unwrap());
                }
            } else {
                hf.insert(key, tensor);
            }
        }
        let names = [
            ("blocks.", "dinov2_with_registers.encoder.layer."),
            (".attn.proj.", ".attention.output.dense."),
            (".ls1.gamma", ".layer_scale1.lambda1"),
            (".ls2.gamma", ".layer_scale2.lambda1"),
            ("cls_token", "dinov2_with_registers.embeddings.cls_token"),
            ("reg_token", "dinov2_with_registers.embeddings.register_tokens"),
            ("pos_embed", "dinov2_with_registers.embeddings.position_embeddings"),
            ("patch_embed.proj.", "dinov2_with_registers.embeddings.patch_embeddings.projection."),
            ("head.", "classifier."),
        ];
        let rename = |key: String| match key.strip_prefix("norm.") {
            Some(part) => format!("dinov2_with_registers.layernorm.{part}"),
            None => names.iter().fold(key, |key, (timm, theirs)| key.replace(timm, theirs)),
        };
        hf.into_iter().map(|(key, tensor)| (rename(key), tensor)).collect()
    });
    let config = fs::read_to_string(golden("hf_dinov2/config.json")).unwrap();
    let config = config.replace("\"model_type\": \"dinov2\"", "\"model_type\": \"dinov2_with_registers\"");
    fs::write(copy.path().join("config.json"), config).unwrap();
    let worst = logits_differ(copy.path(), "timm_dinov2_reg4");
    assert!(worst < 1e-5, "logits differ by {worst}");
    let model = Model::open(copy.path().to_str().unwrap()).unwrap();
    let vit = model.config.vit().unwrap();
    assert_eq!((vit.registers, vit.prefix_positions, vit.pool), (4, 1, igq::model::Pool::TokenAndAvg));
    assert_eq!(vit.position_resampling, igq::model::positions::Resampling::BicubicAntialias);
}

/// transformers' DeiT without teacher: a distillation token, but only the class token is classified.
#[test]
fn a_distillation_token_without_a_head_of_its_own_only_takes_part() {
    let logits = |edit: fn(&mut HashMap<String, Tensor>)| {
        let copy = edited("hf_deit_teacher", |mut tensors| {
            edit(&mut tensors);
            tensors
        });
        let model = Model::open(copy.path().to_str().unwrap()).unwrap();
        let input = tensors(golden("hf_deit_teacher/expected.safetensors"))["input"].clone();
        (logits(&model, &input), model)
    };
    let (halved, _) = logits(|tensors| {
        for part in ["weight", "bias"] {
            let key = format!("distillation_classifier.{part}");
            let zeros = tensors[&key].zeros_like().unwrap();
            tensors.insert(key, zeros);
        }
    });
    let (single, model) = logits(|tensors| {
        for part in ["weight", "bias"] {
            tensors.remove(&format!("distillation_classifier.{part}"));
            let head = tensors.remove(&format!("cls_classifier.{part}")).unwrap();
            tensors.insert(format!("classifier.{part}"), head);
        }
    });
    assert!(difference(&single, &(halved * 2.0).unwrap()) < 1e-6);
    assert!(model.notes.iter().any(|note| note.contains("distillation token has no classifier")), "{:?}", model.notes);
}

/// Nothing in the quantized run knows whether a network has stages and windows.
#[test]
fn a_swin_is_quantized_like_any_other() {
    let options = Options { model: golden("timm_swin").to_str().unwrap().into(), calibration_images: 4, ..Options::default() };
    let session = Session::open(&options, &|_| ()).unwrap();
    let run = |bits: u8| {
        let bits = bits.to_string().parse().unwrap();
        let settings = Settings { wbits: bits, abits: bits, sbits: bits, ..Settings::default() };
        session.run(0, &settings, &Cancel::default()).unwrap()
    };
    let float = run(32);
    assert_eq!(float.quantized.prediction, float.base.float.prediction, "32 bits are float bit for bit");
    let (four, eight) = (run(4), run(8));
    for (outcome, name) in [(&four, "4 bits"), (&eight, "8 bits")] {
        assert_eq!(outcome.report.sites.len(), 35, "{name}");
        let attention = outcome.report.site("layers.0.blocks.1.attn".parse().unwrap()).unwrap();
        assert_eq!((attention.channels, attention.assignment.len(), attention.layout.window_count()), (512, 512, 16));
    }
    let worst =
        |outcome: &igq::session::Outcome| outcome.report.sites.iter().filter_map(|s| s.local.error.sqnr_db).fold(f64::MAX, f64::min);
    assert!(worst(&four) < worst(&eight), "{} dB at 4 bits, {} at 8", worst(&four), worst(&eight));
}

/// The shapes that a pass shows at every site are those that the description of the sites gives.
#[test]
fn sites_are_described_as_they_are_met() {
    for entry in fs::read_dir(golden("")).unwrap() {
        let folder = entry.unwrap().path();
        let model = Model::open(folder.to_str().unwrap()).unwrap();
        let mut met = Vec::new();
        let mut recorder = Recorder(|site: igq::model::Site, x: &Tensor| {
            met.push((site, x.dims()[1..].to_vec()));
            Ok(())
        });
        forward(model.network(), &tensors(folder.join("expected.safetensors"))["input"], &mut recorder).unwrap();
        assert_eq!(met.len(), model.sites().len(), "{}", folder.display());
        for (info, (site, shape)) in model.sites().iter().zip(&met) {
            assert_eq!(info.site, *site);
            assert_eq!((info.layout, info.layout.tokens()), (model.network().layout(*site), info.tokens), "{site}");
            let rows: usize = shape[..shape.len() - 1].iter().product();
            let columns = shape[shape.len() - 1];
            if site.kind.is_softmax() {
                let product = info.product.unwrap();
                assert_eq!((info.channels, product.inner, product.count * product.rows), (rows, columns, rows), "{site}");
                assert_eq!((shape[0], shape[1]), (info.heads * info.layout.window_count(), info.layout.window_tokens()), "{site}");
            } else {
                assert_eq!((info.tokens, info.channels), (rows, columns), "{site}");
            }
            let shape = model.network().weight(*site).map(|weight| weight.tensor().unwrap().dims().to_vec());
            assert_eq!(shape, info.layer.as_ref().map(|layer| vec![layer.outputs, info.channels]), "{site}");
        }
    }
}

#[test]
fn logits_of_a_real_dinov2_at_a_smaller_size() {
    let Some(folder) = common::shared("models/dinov2-small-proto") else { return };
    let model = Model::open(folder.to_str().unwrap()).unwrap();
    let vit = model.config.vit().unwrap();
    assert_eq!((vit.image_size, vit.position_grid), ((224, 224), (37, 37)));
    assert!(model.notes.iter().any(|n| n.contains("from 37x37 to 16x16 patches")), "{:?}", model.notes);
    let expected = tensors(folder.join("expected.safetensors"));
    let logits = logits(&model, &expected["input"]);
    let worst = difference(&logits, &expected["logits"]);
    eprintln!("dinov2-small-proto: logits differ by {worst}");
    assert!(worst < 2e-2, "logits differ by {worst}");
    let top = |logits: &Tensor| logits.argmax(1).unwrap().to_vec1::<u32>().unwrap();
    assert_eq!(top(&logits), top(&expected["logits"]));
}

#[test]
fn logits_of_a_real_imagenet_vit() {
    let Some(folder) = common::shared("models/vit-tiny-in1k") else { return };
    let model = Model::open(folder.to_str().unwrap()).unwrap();
    let expected = tensors(folder.join("expected.safetensors"));
    let worst = difference(&logits(&model, &expected["input"]), &expected["logits"]);
    assert!(worst < 2e-2, "logits differ by {worst}");
}

/// A pass that starts at any step from what was there ends in the same logits; a token's place is where its own pixels are.
#[test]
fn a_swin_starts_anywhere_and_knows_where_its_tokens_are() {
    let model = Model::open(golden("timm_swin").to_str().unwrap()).unwrap();
    let network = model.network();
    assert_eq!(network.steps(), 1 + 4 + 1 + 4 + 1);
    let described = "Swin, 2+2 blocks, width 24+48, 2+4 heads, windows of 4, 32x32x3 in patches of 2x2, 7 classes";
    assert_eq!(model.describe(), described);
    let pixels = tensors(golden("timm_swin/expected.safetensors"))["input"].clone();
    let whole = trace(network, &pixels, &mut Identity).unwrap();
    for (step, boundary) in whole.boundaries.iter().enumerate() {
        let logits = forward_from(network, step, boundary, &mut Identity).unwrap();
        assert_eq!(difference(&logits.logits, &whole.output.logits), 0.0, "step {step}");
    }
    let addresses: Vec<String> = model.sites().iter().map(|info| info.site.to_string()).collect();
    assert!(addresses.contains(&"layers.1.merge".into()) && addresses.contains(&"layers.1.blocks.1.fc2".into()), "{addresses:?}");

    // The first stage has 16 x 16 tokens in windows of 4, shifted by 2 in the second block. A change of one patch changes exactly one
    // token of what the first attention and the first MLP see, and those tokens say that they lie there.
    let seen = |pixels: &Tensor| {
        let mut seen = HashMap::new();
        let mut recorder = Recorder(|site: igq::model::Site, x: &Tensor| {
            seen.insert(site.to_string(), x.narrow(0, 0, 1).unwrap());
            Ok(())
        });
        forward(network, pixels, &mut recorder).unwrap();
        seen
    };
    let (row, column) = (13, 6);
    let mut values = pixels.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values[2 * row * 32 + 2 * column] += 1.0;
    let changed = seen(&Tensor::from_vec(values, pixels.dims(), pixels.device()).unwrap());
    let before = seen(&pixels);
    for site in ["patch", "layers.0.blocks.0.qkv", "layers.0.blocks.0.q"] {
        let layout = network.layout(site.parse().unwrap());
        let difference = (&changed[site] - &before[site]).unwrap().abs().unwrap().sum(2).unwrap().flatten_all().unwrap();
        let moved: Vec<usize> = (0..256).filter(|token| difference.get(*token).unwrap().to_scalar::<f32>().unwrap() > 0.0).collect();
        assert_eq!(moved, [layout.token_at(row, column).unwrap()], "{site}");
    }
    // In the second block the change has reached the window of the first, and no other place.
    let layout = network.layout("layers.0.blocks.1.qkv".parse().unwrap());
    assert_eq!(layout.windows.unwrap().shift, (2, 2));
    let (changed, before) = (&changed["layers.0.blocks.1.qkv"], &before["layers.0.blocks.1.qkv"]);
    let difference = (changed - before).unwrap().abs().unwrap().sum(2).unwrap().flatten_all().unwrap().to_vec1::<f32>().unwrap();
    let mut places: Vec<_> = (0..256).filter(|token| difference[*token] > 0.0).map(|token| layout.place(token).unwrap()).collect();
    places.sort_unstable();
    let window: Vec<_> = (12..16).flat_map(|row| (4..8).map(move |column| (row, column))).collect();
    assert_eq!(places, window);
}

#[test]
fn positions_are_resampled_to_the_size_of_the_configuration() {
    let size = |folder: &Path, from: &str, to: &str| {
        let path = folder.join("config.json");
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from));
        fs::write(path, text.replace(from, to)).unwrap();
    };
    let copy = edited("timm_dinov2_reg4", |tensors| tensors);
    size(copy.path(), "\"img_size\": 32", "\"img_size\": 48");
    let model = Model::open(copy.path().to_str().unwrap()).unwrap();
    let vit = model.config.vit().unwrap();
    assert_eq!((vit.image_size, vit.position_grid, vit.tokens()), ((48, 48), (4, 4), 5 + 36));
    assert!(model.notes.iter().any(|note| note.contains("from 4x4 to 6x6 patches")), "{:?}", model.notes);
    let copy = edited("hf_vit", |tensors| tensors);
    size(copy.path(), "\"image_size\": 32", "\"image_size\": 48");
    let error = Model::open(copy.path().to_str().unwrap()).err().unwrap().to_string();
    assert!(error.contains("vit.embeddings.position_embeddings") && error.contains("37 positions"), "{error}");
}

#[test]
fn every_operand_of_a_plain_vit() {
    let model = Model::open(golden("timm_vit").to_str().unwrap()).unwrap();
    let expected = tensors(golden("timm_vit/expected.safetensors"));
    let mut seen: HashMap<String, Tensor> = HashMap::new();
    let mut recorder = Recorder(|site: igq::model::Site, x: &Tensor| {
        let name = match (site.block, site.kind) {
            (Some(block), SiteKind::Attn) => format!("blocks.{block}.attention"),
            _ => format!("{site}.input"),
        };
        seen.insert(name, x.clone());
        Ok(())
    });
    forward(model.network(), &expected["input"], &mut recorder).unwrap();
    let sites: Vec<&String> = expected.keys().filter(|k| k.starts_with("blocks.")).collect();
    assert_eq!(sites.len(), 3 * 5, "the golden file has five operands for each of three blocks");
    for name in sites {
        let worst = difference(&seen[name], &expected[name]);
        assert!(worst < 1e-4, "{name} differs by {worst}");
    }
}

#[test]
fn the_built_in_model_gives_the_logits_it_was_shipped_with() {
    let model = Model::open("fashion-vit").unwrap();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fashion-vit/expected.safetensors");
    let expected = tensors(path);
    let logits = logits(&model, &expected["input"]);
    let worst = difference(&logits, &expected["logits"]);
    assert!(worst < 1e-4, "logits differ by {worst}");
}

#[test]
fn the_built_in_pictures_become_the_tensors_the_model_was_trained_on() {
    let session = common::built_in();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/fashion-vit/expected.safetensors");
    let expected = tensors(path);
    for index in 0..8 {
        let prepared = session.base(index).unwrap().prepared;
        let worst = difference(&prepared.tensor, &expected["input"].narrow(0, index, 1).unwrap());
        assert!(worst < 1e-5, "picture {index} differs by {worst}");
    }
}

#[test]
fn what_was_inferred_is_said() {
    let model = Model::open(golden("timm_vit_avgpool_fcnorm").to_str().unwrap()).unwrap();
    let vit = model.config.vit().unwrap();
    assert_eq!((vit.depth, vit.heads, vit.embed_dim, vit.classes), (3, 3, 48, 7));
    assert!(vit.fc_norm && vit.pool == igq::model::Pool::Avg);
    assert!(model.notes.iter().any(|n| n.contains("3 blocks, width 48")), "{:?}", model.notes);
}
