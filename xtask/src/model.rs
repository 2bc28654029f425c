//! `cargo xtask model`: a synthetic model for where no real one is at hand. Its files are what a downloaded model has: sharded
//! safetensors with the tensor names of a small Llama, an index, a configuration and a tokenizer.
//!
//! The weights are pseudo-random but finite half-precision numbers, the same at every run; no two pages of 4 KiB are alike, so
//! that a page in the wrong place shows.

use crate::Result;
use ring::digest;
use serde_json::{Map, Value, json};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};

/// Arguments of `cargo xtask model`.
#[derive(clap::Args)]
pub(crate) struct ModelArgs {
    /// Bytes of weights, with K, M or G for powers of 1024: 64M, 4G.
    #[arg(long, value_name = "SIZE", value_parser = parse_size)]
    size: u64,
    /// Where to write it; must not exist, unless it is this same model.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Runs the subcommand.
pub(crate) fn run(args: &ModelArgs) -> Result<()> {
    let start = std::time::Instant::now();
    let written = make(args.size, &args.out)?;
    let out = args.out.display();
    match written {
        0 => println!("{out}: already there"),
        bytes => println!("{out}: {bytes} bytes of weights in {:.1} s", start.elapsed().as_secs_f64()),
    }
    Ok(())
}

/// Smallest model; below it there is no room for a layer.
const SIZE_MIN: u64 = 256 * 1024;
/// Weights in one file at most. Real models are cut like this too, so loading takes more than one file.
const SHARD_BYTES_MAX: u64 = 2 << 30;
/// Bytes of a half-precision number.
const F16_BYTES: u64 = 2;

/// Makes a model with this many bytes of weights (to within a row of its embedding) in `out`; returns the bytes of weights
/// written, 0 if the same model is there already.
///
/// # Errors
/// If something else is in `out`, or it cannot be written.
pub(crate) fn make(size: u64, out: &Path) -> Result<u64> {
    let shape = Shape::of_size(size)?;
    let config = serde_json::to_vec_pretty(&shape.config())?;
    if fs::read(out.join("config.json")).is_ok_and(|there| there == config) {
        return Ok(0);
    }
    if out.exists() && fs::read_dir(out)?.next().is_some() {
        return Err(format!("{} is there and is not this model", out.display()).into());
    }
    fs::create_dir_all(out)?;
    let shards = shards(shape.tensors());
    let mut map = Map::new();
    let mut weights = Weights::new();
    for (number, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_string(),
            count => format!("model-{:05}-of-{count:05}.safetensors", number + 1),
        };
        map.extend(shard.iter().map(|tensor| (tensor.name.clone(), Value::from(name.as_str()))));
        write_safetensors(&out.join(&name), shard, &mut weights)?;
    }
    let total: u64 = shards.iter().flatten().map(Tensor::bytes).sum();
    if shards.len() > 1 {
        let index = json!({ "metadata": { "total_size": total }, "weight_map": map });
        fs::write(out.join("model.safetensors.index.json"), serde_json::to_vec_pretty(&index)?)?;
    }
    fs::write(out.join("tokenizer.json"), serde_json::to_vec_pretty(&tokenizer())?)?;
    // Last: it says that the rest is complete.
    fs::write(out.join("config.json"), config)?;
    Ok(total)
}

/// `4G` → bytes.
pub(crate) fn parse_size(text: &str) -> std::result::Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'M', 'G']);
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return Err("a number, then K, M, G or nothing".into()),
    };
    let number: u64 = digits.parse().map_err(|_| "a number, then K, M, G or nothing")?;
    number.checked_mul(unit).ok_or_else(|| "too large".into())
}

/// The numbers that make the shape of a Llama.
struct Shape {
    hidden: u64,
    intermediate: u64,
    layers: u64,
    vocabulary: u64,
}

struct Tensor {
    name: String,
    shape: Vec<u64>,
}

impl Tensor {
    fn bytes(&self) -> u64 {
        self.shape.iter().product::<u64>() * F16_BYTES
    }
}

impl Shape {
    /// The widest that leaves room for hidden/128 layers, as real ones have; the vocabulary takes what is left.
    fn of_size(size: u64) -> Result<Self> {
        if size < SIZE_MIN {
            return Err(format!("a model has at least {SIZE_MIN} bytes").into());
        }
        let parameters = size / F16_BYTES;
        let mut best = Self { hidden: 64, intermediate: 192, layers: 1, vocabulary: 0 };
        for step in 1..=128 {
            let hidden = 64 * step;
            let candidate = Self { hidden, intermediate: hidden * 8 / 3 / 64 * 64 + 64, layers: 1, vocabulary: 0 };
            // A quarter is for embedding and head.
            let room = (parameters - parameters / 4) / candidate.layer_parameters();
            if room < (hidden / 128).max(1) {
                break;
            }
            best = Self { layers: room, ..candidate };
        }
        let left = parameters.saturating_sub(best.layers * best.layer_parameters() + best.hidden);
        Ok(Self { vocabulary: (left / (2 * best.hidden)).max(1), ..best })
    }

    fn layer_parameters(&self) -> u64 {
        4 * self.hidden * self.hidden + 3 * self.hidden * self.intermediate + 2 * self.hidden
    }

    fn tensors(&self) -> Vec<Tensor> {
        let (hidden, wide) = (self.hidden, self.intermediate);
        let tensor = |name: String, shape: &[u64]| Tensor { name, shape: shape.to_vec() };
        let mut tensors = vec![tensor("model.embed_tokens.weight".into(), &[self.vocabulary, hidden])];
        for layer in 0..self.layers {
            let mut add = |name: &str, shape: &[u64]| {
                tensors.push(tensor(format!("model.layers.{layer}.{name}.weight"), shape));
            };
            add("input_layernorm", &[hidden]);
            for projection in ["q_proj", "k_proj", "v_proj", "o_proj"] {
                add(&format!("self_attn.{projection}"), &[hidden, hidden]);
            }
            add("post_attention_layernorm", &[hidden]);
            add("mlp.gate_proj", &[wide, hidden]);
            add("mlp.up_proj", &[wide, hidden]);
            add("mlp.down_proj", &[hidden, wide]);
        }
        tensors.push(tensor("model.norm.weight".into(), &[hidden]));
        tensors.push(tensor("lm_head.weight".into(), &[self.vocabulary, hidden]));
        tensors
    }

    fn config(&self) -> Value {
        let heads = self.hidden / 64;
        json!({
            "architectures": ["LlamaForCausalLM"],
            "model_type": "llama",
            "hidden_act": "silu",
            "hidden_size": self.hidden,
            "intermediate_size": self.intermediate,
            "num_attention_heads": heads,
            "num_hidden_layers": self.layers,
            "num_key_value_heads": heads,
            "rms_norm_eps": 1e-5,
            "torch_dtype": "float16",
            "vocab_size": self.vocabulary,
            "synthetic": true,
        })
    }
}

fn tokenizer() -> Value {
    let vocabulary: Map<String, Value> =
        ('a'..='z').zip(0..).map(|(letter, id)| (letter.to_string(), Value::from(id))).collect();
    json!({
        "version": "1.0",
        "pre_tokenizer": { "type": "Whitespace" },
        "model": { "type": "WordLevel", "vocab": vocabulary, "unk_token": "a" },
    })
}

/// Cuts the tensors into files; a tensor larger than a file has one for itself.
fn shards(tensors: Vec<Tensor>) -> Vec<Vec<Tensor>> {
    let mut shards: Vec<Vec<Tensor>> = Vec::new();
    let mut bytes = 0;
    for tensor in tensors {
        bytes += tensor.bytes();
        match shards.last_mut() {
            Some(shard) if bytes <= SHARD_BYTES_MAX => shard.push(tensor),
            _ => {
                bytes = tensor.bytes();
                shards.push(vec![tensor]);
            }
        }
    }
    shards
}

/// safetensors: length of the header as u64 little-endian, the header in JSON padded with spaces to 8 bytes, the tensors.
fn write_safetensors(path: &Path, tensors: &[Tensor], weights: &mut Weights) -> Result<()> {
    let mut header = Map::new();
    header.insert("__metadata__".into(), json!({ "format": "pt" }));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes();
        header.insert(
            tensor.name.clone(),
            json!({ "dtype": "F16", "shape": tensor.shape, "data_offsets": [offset, end] }),
        );
        offset = end;
    }
    let mut header = serde_json::to_vec(&header)?;
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut file = File::create(path)?;
    file.write_all(&(header.len() as u64).to_le_bytes())?;
    file.write_all(&header)?;
    while offset > 0 {
        let block = weights.next_block();
        let length = block.len().min(usize::try_from(offset)?);
        file.write_all(&block[..length])?;
        offset -= length as u64;
    }
    Ok(())
}

/// An endless stream of numbers: one block of pseudo-random ones over and over, each of its pages stamped anew. Making every
/// byte anew would take longer than writing it.
struct Weights {
    block: Vec<u8>,
    page: u64,
}

const BLOCK_BYTES: usize = 8 << 20;
const PAGE_BYTES: usize = 4096;

impl Weights {
    fn new() -> Self {
        let seeds = 0..(BLOCK_BYTES / digest::SHA256_OUTPUT_LEN) as u64;
        let mut block = Vec::with_capacity(BLOCK_BYTES);
        for seed in seeds {
            block.extend_from_slice(digest::digest(&digest::SHA256, &seed.to_le_bytes()).as_ref());
        }
        block.chunks_exact_mut(2).for_each(make_finite);
        Self { block, page: 0 }
    }

    fn next_block(&mut self) -> &[u8] {
        for page in self.block.chunks_exact_mut(PAGE_BYTES) {
            // Fourteen bits of the number in each of four halves: every stamp is finite and no two are the same.
            for (half, shift) in page[..8].chunks_exact_mut(2).zip([0, 14, 28, 42]) {
                let bits = (self.page >> shift) as u16 & 0x3fff;
                half.copy_from_slice(&bits.to_le_bytes());
            }
            self.page += 1;
        }
        &self.block
    }
}

/// Clears the top bit of the exponent: the number is then less than 2 in size, and neither infinite nor NaN.
fn make_finite(f16: &mut [u8]) {
    f16[1] &= 0b1011_1111;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scratch(name: &str) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("xtask-model-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&dir);
        dir
    }

    #[test]
    fn shape_has_the_size_that_was_asked_for() {
        for size in [SIZE_MIN, 1 << 20, 90_000_000, 1 << 30, 4 << 30, 70 << 30] {
            let shape = Shape::of_size(size).unwrap();
            let bytes: u64 = shape.tensors().iter().map(Tensor::bytes).sum();
            assert!(bytes <= size && size - bytes <= 4 * shape.hidden + 1, "{size}: {bytes}");
            assert!(shape.layers >= 1 && shape.hidden.is_multiple_of(64));
        }
        assert!(Shape::of_size(SIZE_MIN - 1).is_err());
    }

    #[test]
    fn large_model_is_cut_into_files() {
        let shards = shards(Shape::of_size(5 << 30).unwrap().tensors());
        assert_eq!(shards.len(), 3);
        assert!(shards.iter().all(|shard| shard.iter().map(Tensor::bytes).sum::<u64>() <= SHARD_BYTES_MAX));
    }

    #[test]
    fn written_file_is_safetensors_with_finite_and_distinct_pages() {
        let dir = scratch("file");
        let total = make(1 << 20, &dir).unwrap();
        let file = fs::read(dir.join("model.safetensors")).unwrap();
        let header_length = u64::from_le_bytes(file[..8].try_into().unwrap()) as usize;
        let header: Map<String, Value> = serde_json::from_slice(&file[8..8 + header_length]).unwrap();
        let data = &file[8 + header_length..];
        let ends = header.values().filter_map(|tensor| tensor["data_offsets"][1].as_u64());
        assert_eq!((header_length % 8, ends.max()), (0, Some(total)));
        assert_eq!(data.len() as u64, total);
        assert!(header.contains_key("model.layers.0.mlp.down_proj.weight"));
        assert!(data.chunks_exact(2).all(|half| half[1] & 0x7c != 0x7c));
        let pages: std::collections::BTreeSet<&[u8]> = data.chunks(PAGE_BYTES).collect();
        assert_eq!(pages.len(), data.len().div_ceil(PAGE_BYTES));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn pages_differ_also_where_the_block_repeats() {
        let mut weights = Weights::new();
        let first = weights.next_block()[..PAGE_BYTES].to_vec();
        assert_ne!(first, weights.next_block()[..PAGE_BYTES]);
    }

    #[test]
    fn same_model_is_made_once_and_another_is_not_written_over_it() {
        let dir = scratch("again");
        assert!(make(1 << 20, &dir).unwrap() > 0);
        assert_eq!(make(1 << 20, &dir).unwrap(), 0);
        assert!(make(1 << 21, &dir).unwrap_err().to_string().contains("not this model"));
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn sizes_are_read() {
        assert_eq!((parse_size("4G"), parse_size("64M"), parse_size("7")), (Ok(4 << 30), Ok(64 << 20), Ok(7)));
        for wrong in ["", "G", "4GG", "4g", "-1", "99999999999G"] {
            assert!(parse_size(wrong).is_err(), "{wrong}");
        }
    }
}
