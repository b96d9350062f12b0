//! What is said twice and differently: a configuration that is not one of the tensors, names under several wrappers, lists and folders
//! that count a picture twice. Each is refused by name, or right within 1e-4 of the library that wrote the checkpoint.

#![allow(clippy::unwrap_used, clippy::expect_used)]

mod common;

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use common::{difference, edited, golden, tensors};
use igq::input::set::PictureSet;
use igq::model::{Identity, Model, Pool, forward};
use serde_json::{Value, json};

/// A copy of a golden checkpoint with other values in its configuration; null takes a key away, a dot leads into it.
fn with(name: &str, edit: impl FnOnce(HashMap<String, Tensor>) -> HashMap<String, Tensor>, changes: &[(&str, Value)]) -> tempfile::TempDir {
    let copy = edited(name, edit);
    let path = copy.path().join("config.json");
    let mut config: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    for (key, value) in changes {
        let (place, key) = match key.split_once('.') {
            Some((outer, key)) => (&mut config[outer], key),
            None => (&mut config, *key),
        };
        place[key] = value.clone();
        if value.is_null() {
            place.as_object_mut().unwrap().remove(key);
        }
    }
    fs::write(path, config.to_string()).unwrap();
    copy
}

fn opened(folder: &Path) -> Result<Model, String> {
    Model::open(folder.to_str().unwrap()).map_err(|e| e.to_string())
}

fn refused(folder: &Path, words: &[&str]) {
    let error = opened(folder).err().unwrap_or_default();
    assert!(!error.is_empty(), "{words:?} was taken");
    for word in words {
        assert!(error.contains(word), "`{word}` is not in: {error}");
    }
}

/// The logits of a copy are those that were kept of the original.
fn right(name: &str, folder: &Path) {
    let expected = tensors(golden(&format!("{name}/expected.safetensors")));
    let model = opened(folder).unwrap();
    let found = forward(model.network(), &expected["input"], &mut Identity).unwrap().classes().unwrap();
    let off = difference(&found, &expected["logits"]);
    assert!(off <= 1e-4, "{name}: {off}");
}

#[test]
fn a_configuration_of_another_model_is_refused_by_the_key() {
    for (name, key, value) in [
        ("hf_vit", "qkv_bias", json!(false)),
        ("hf_vit", "patch_size", json!(16)),
        ("hf_vit", "hidden_size", json!(64)),
        ("hf_vit", "intermediate_size", json!(65)),
        ("hf_vit", "num_channels", json!(1)),
        ("hf_vit", "model_type", json!("deit")),
        ("hf_vit", "pruned_heads", json!({"0": [1]})),
        ("hf_dinov2", "model_type", json!("vit")),
        ("hf_dinov2", "mlp_ratio", json!(7)),
        ("hf_dinov2", "use_swiglu_ffn", json!(true)),
        ("hf_swin", "num_heads", json!([4, 4])),
        ("hf_swin", "window_size", json!(7)),
        ("hf_swin", "qkv_bias", json!(false)),
        ("timm_vit", "model_args.qkv_bias", json!(false)),
        ("timm_vit", "model_args.reg_tokens", json!(2)),
        ("timm_vit", "model_args.class_token", json!(false)),
        ("timm_vit", "model_args.init_values", json!(0.1)),
        ("timm_vit", "model_args.pre_norm", json!(true)),
        ("timm_vit", "model_args.fc_norm", json!(true)),
        ("timm_vit", "model_args.mlp_ratio", json!(3)),
        ("timm_vit", "model_args", json!([1])),
        ("timm_vit", "architecture", json!(["vit_tiny_patch16_224"])),
        ("timm_dinov2_reg4", "model_args.reg_tokens", json!(3)),
        ("timm_swin", "model_args.window_size", json!(2)),
        ("timm_swin", "model_args.always_partition", json!(true)),
        // Where timm does not read them.
        ("timm_vit", "layer_norm_eps", json!(0.01)),
        ("timm_vit", "pretrained_cfg.act_layer", json!("gelu_tanh")),
    ] {
        let copy = with(name, |t| t, &[(key, value)]);
        refused(copy.path(), &[key.rsplit('.').next().unwrap(), "config.json"]);
    }
    let neither = with("hf_vit", |t| t, &[("model_type", Value::Null), ("softcap", json!(30.0))]);
    refused(neither.path(), &["`softcap` (30.0)"]);
    let stale = with("timm_vit", |t| t, &[("num_classes", json!(1000))]);
    assert!(opened(stale.path()).unwrap().notes.iter().any(|note| note.contains("num_classes of config.json is 1000")));
}

#[test]
fn what_a_library_takes_where_nothing_is_said_is_taken() {
    // transformers has 12 heads for all, which width 48 takes.
    let heads = with("hf_vit", |t| t, &[("num_attention_heads", Value::Null)]);
    assert_eq!(opened(heads.path()).unwrap().config.vit().unwrap().heads, 12);
    // Keys of published files that no code reads.
    right("hf_swin", with("hf_swin", |t| t, &[("path_norm", json!(true)), ("padding", json!("max_length"))]).path());
    // A norm behind the pooling of the class token, as model_args ask for it; without them nothing says which pooling it is for.
    let silent = [("global_pool", Value::Null), ("model_args.global_pool", Value::Null), ("pretrained_cfg.global_pool", Value::Null)];
    let token = with("timm_vit_avgpool_fcnorm", |t| t, &[&silent[..], &[("model_args.fc_norm", json!(true))]].concat());
    assert_eq!(opened(token.path()).unwrap().config.vit().unwrap().pool, Pool::Token);
    refused(with("timm_vit_avgpool_fcnorm", |t| t, &silent).path(), &["fc_norm", "global_pool"]);
    let bias = edited("timm_vit", |mut t| {
        t.remove("patch_embed.proj.bias");
        t
    });
    refused(bias.path(), &["patch_embed.proj.bias", "no such tensor"]);
}

#[test]
fn positions_of_few_patches_are_not_guessed() {
    let nine = |mut t: HashMap<String, Tensor>| {
        t.insert("pos_embed".into(), Tensor::zeros((1, 9, 48), DType::F32, &Device::Cpu).unwrap());
        t
    };
    let grid = |changes: &[(&str, Value)]| {
        let vit = opened(with("timm_dinov2_reg4", nine, changes).path()).unwrap().config.vit().unwrap().clone();
        (vit.position_grid, vit.prefix_positions)
    };
    assert_eq!(grid(&[("model_args.no_embed_class", json!(true))]), ((3, 3), 0));
    assert_eq!(grid(&[("model_args.no_embed_class", json!(false))]), ((2, 2), 5));
    assert_eq!(grid(&[("model_args.no_embed_class", Value::Null)]), ((3, 3), 0), "as the architecture has it");
    let unknown = [("model_args.no_embed_class", Value::Null), ("architecture", Value::Null)];
    refused(with("timm_dinov2_reg4", nine, &unknown).path(), &["no_embed_class"]);
}

#[test]
fn wrappers_in_any_order_and_copies_inside_of_them_are_understood() {
    let renamed = |tensors: HashMap<String, Tensor>, name: &dyn Fn(&str) -> String| -> HashMap<String, Tensor> {
        tensors.into_iter().map(|(key, tensor)| (name(&key), tensor)).collect()
    };
    for start in ["_forward_module.", "model._fsdp_wrapped_module.module.", "base_model.model.", "state_dict.", "0."] {
        right("timm_vit", edited("timm_vit", |t| renamed(t, &|key| format!("{start}{key}"))).path());
        right("hf_vit", edited("hf_vit", |t| renamed(t, &|key| format!("{start}{key}"))).path());
    }
    right(
        "timm_vit",
        edited("timm_vit", |t| renamed(t, &|key| format!("{}{key}", if key.starts_with("head") { "" } else { "enc." }))).path(),
    );
    right("timm_vit", edited("timm_vit", |t| renamed(t, &|key| key.replace("head.", "classifier."))).path());
    for (kept, left) in [("module.teacher.", "module.student."), ("model.", "model.ema."), ("", "state_dict_ema.")] {
        let both = edited("timm_vit", |t| {
            let mut all = renamed(t.clone(), &|key| format!("{kept}{key}"));
            all.extend(t.into_iter().map(|(key, tensor)| (format!("{left}{key}"), (tensor * 2.0).unwrap())));
            all
        });
        right("timm_vit", both.path());
    }
    for name in ["blocks.0.decoder.weight", "attn_pooler.weight", "blocks.0.attn.gate"] {
        let dtype = if name.ends_with("gate") { DType::U32 } else { DType::F32 };
        let more = edited("timm_vit", |mut t| {
            t.insert(name.into(), Tensor::zeros(48, dtype, &Device::Cpu).unwrap());
            t
        });
        refused(more.path(), &[name, "does not know"]);
    }
    let tower = edited("timm_vit", |t| renamed(t, &|key| format!("vision_model.{}", key.replace("patch_embed.proj", "embeddings.patch"))));
    fs::remove_file(tower.path().join("config.json")).unwrap();
    let names = |t: HashMap<String, Tensor>| renamed(t, &|key| format!("vision_model.encoder.{}", key.replace('.', "_")));
    refused(edited("timm_vit", names).path(), &["the image tower of a CLIP or SigLIP model"]);
}

fn picture(folder: &Path, name: &str) {
    fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
    fs::copy(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/preprocess/colour.png"), folder.join(name)).unwrap();
}

#[test]
#[cfg(unix)]
fn folders_that_lead_into_themselves_count_once() {
    let folder = tempfile::tempdir().unwrap();
    picture(folder.path(), "0/a.png");
    picture(folder.path(), "1/b.png");
    std::os::unix::fs::symlink("..", folder.path().join("0/up")).unwrap();
    std::os::unix::fs::symlink(folder.path().join("0"), folder.path().join("0/self")).unwrap();
    let set = PictureSet::labelled(folder.path(), &[], 2).unwrap();
    assert_eq!(set.pictures.len(), 2, "nothing of 1 is of class 0");
    assert_eq!(
        set.left_out.iter().map(|left| (left.reason.as_str(), left.count)).collect::<Vec<_>>(),
        [("folder that is there under another name", 2)]
    );
}

#[test]
fn a_list_that_contradicts_itself_is_refused_by_line() {
    let labels = ["cat", "dog"].map(String::from);
    let listed = |text: &str| {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a.png", "b.png"] {
            picture(folder.path(), name);
        }
        fs::write(folder.path().join("labels.csv"), text).unwrap();
        PictureSet::labelled(folder.path(), &labels, 2).map_err(|e| e.to_string())
    };
    for (text, words) in [
        ("file,class\na.png,0\na.png,1\n", "line 3: `a.png` has class 1, in line 2 it has 0"),
        ("file,class,label\na.png,0,dog\n", "line 2: expected one class, found 0 and 1"),
        ("file,class\na.png,+1\n", "line 2: expected a class of the model, found `+1`"),
    ] {
        let error = listed(text).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let set = listed("file,class\na.png,0\n./a.png,cat\n").unwrap();
    let reasons: Vec<_> = set.left_out.iter().map(|left| (left.reason.as_str(), left.count)).collect();
    assert_eq!((set.pictures.len(), reasons), (1, vec![("named twice in labels.csv", 1), ("not in labels.csv", 1)]));
}
