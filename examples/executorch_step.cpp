// One cycle of training steps of a bundle on stock ExecuTorch: what a host loop in C++ does. docs/executorch.md says how it is built.
//
//     executorch_step BUNDLE
//
// trains from the initial adapter on the first sequence of the bundle's recorded run, at its learning rate, and prints one JSON object
// a step: its number, its loss before the update, and the norm of its gradient.

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <exception>
#include <fstream>
#include <iterator>
#include <map>
#include <memory>
#include <set>
#include <stdexcept>
#include <string>
#include <vector>

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include "json.h"

namespace {

using executorch::aten::ScalarType;
using executorch::aten::SizesType;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;

using Layers = std::set<std::size_t>;
using Values = std::map<std::string, TensorPtr>;  // by the names of a program's inputs or outputs

constexpr int kFormatVersion = 3;

[[noreturn]] void fail(const std::string& message) { throw std::runtime_error(message); }

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) fail(path + ": cannot be read");
  return {std::istreambuf_iterator<char>(file), {}};
}

Json read_json(const std::string& path) {
  const std::string text = read_file(path);
  try {
    return Json::parse(text);
  } catch (const std::runtime_error& error) {
    fail(path + ": " + error.what());
  }
}

Layers layer_set(const Json& numbers) {
  const auto layers = numbers.numbers<std::size_t>();
  return {layers.begin(), layers.end()};
}

// A file, mapped for reading: its pages are the system's to drop, and count as no memory of the process. A page of zeros follows it, since
// XNNPACK may read some bytes beyond a tensor's end.
class MappedFile {
 public:
  explicit MappedFile(const std::string& path) {
    const int file = open(path.c_str(), O_RDONLY);
    struct stat status {};
    if (file < 0 || fstat(file, &status) != 0) fail(path + ": cannot be read");
    size_ = static_cast<std::size_t>(status.st_size);
    mapped_ = size_ + static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    void* start = mmap(nullptr, mapped_, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (start != MAP_FAILED) start = mmap(start, size_, PROT_READ, MAP_PRIVATE | MAP_FIXED, file, 0);
    close(file);
    if (start == MAP_FAILED) fail(path + ": cannot be mapped");
    start_ = static_cast<char*>(start);
  }
  ~MappedFile() { munmap(start_, mapped_); }
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  char* at(std::size_t offset, std::size_t size) const {
    if (offset > size_ || size > size_ - offset) fail("weights.bin ends before a tensor of the manifest; export the bundle again");
    return start_ + offset;
  }

 private:
  char* start_ = nullptr;
  std::size_t size_ = 0, mapped_ = 0;
};

// The programs of a bundle: methods of one file, run on the weights where they lie.
class Programs {
 public:
  explicit Programs(const std::string& bundle)
      : manifest(read_json(bundle + "/manifest.json")),
        weights_(bundle + "/weights.bin"),
        // Shared arenas: all methods compute in one piece of memory, the size of the largest. A method's results last until the next call.
        module_(bundle + "/programs.pte", Module::LoadMode::Mmap, nullptr, nullptr, nullptr, /*share_memory_arenas=*/true) {
    const int version = manifest["format_version"].number<int>();
    if (version != kFormatVersion)
      fail(bundle + ": expected format version " + std::to_string(kFormatVersion) + ", found " + std::to_string(version));
    const std::string& target = manifest["target"].string();
    if (target != "executorch") fail(bundle + ": expected a bundle of target executorch, found " + target);
    const Error loaded = module_.load(executorch::runtime::Program::Verification::InternalConsistency);
    if (loaded != Error::Ok) fail(bundle + "/programs.pte: " + executorch::runtime::to_string(loaded));
    for (const Json& tensor : manifest["weights"].array()) table_[tensor["name"].string()] = &tensor;
    for (const Json& kind : manifest["kinds"].array()) kinds_[kind["name"].string()] = &kind;
  }

  const Json manifest;

  const std::vector<Json>& layers() const { return manifest["layers"].array(); }
  const Json& kind(std::size_t layer) const { return *kinds_.at(layers()[layer]["kind"].string()); }

  // Runs a program on what `feeds` has of its inputs, and returns its results, copied. `layer`: whose weights it takes, if any.
  Values run(const std::string& program, const Values& feeds, std::size_t layer = 0) {
    const Json& graph = manifest["graphs"][program];
    std::vector<TensorPtr> held;  // an EValue refers to its tensor
    std::vector<EValue> inputs;
    for (const Json& input : graph["inputs"].array()) {  // in the method's order
      held.push_back(input["weight"].type == Json::Type::Null ? fed(program, feeds, input) : weight(input["weight"].string(), layer));
      inputs.emplace_back(*held.back());
    }
    const auto results = module_.execute(program, inputs);
    if (!results.ok()) fail("programs.pte: " + program + ": " + executorch::runtime::to_string(results.error()));
    const std::vector<Json>& outputs = graph["outputs"].array();
    if (results->size() != outputs.size()) fail("programs.pte: " + program + " returns other results than the manifest says");
    Values values;
    for (std::size_t i = 0; i < outputs.size(); ++i)
      values[outputs[i]["name"].string()] = executorch::extension::clone_tensor_ptr((*results)[i].toTensor());
    return values;
  }

  // A layer's program, with what it reads of `tables` and takes of `crossing`.
  Values run_layer(const char* role, std::size_t layer, const Values& tables, const Values& crossing, Values feeds) {
    const Json& place = layers()[layer];
    bind(place["reads"], tables, feeds);
    bind(place["takes"], crossing, feeds);
    return run(place["kind"].string() + "_" + role, feeds, layer);
  }

 private:
  static void bind(const Json& names, const Values& values, Values& feeds) {
    for (std::size_t i = 0; i < names.keys.size(); ++i)
      if (const auto found = values.find(names.items[i].string()); found != values.end()) feeds[names.keys[i]] = found->second;
  }

  static TensorPtr fed(const std::string& program, const Values& feeds, const Json& input) {
    const auto found = feeds.find(input["name"].string());
    if (found == feeds.end()) fail("programs.pte: " + program + ": its input " + input["name"].string() + " is not made by this loop");
    return found->second;
  }

  // A tensor of weights.bin in place; of a stacked one the layer's slice, by its number in its kind.
  TensorPtr weight(const std::string& name, std::size_t layer) const {
    static const std::map<std::string, std::pair<ScalarType, std::size_t>> kTypes = {{"uint8", {ScalarType::Byte, 1}},
                                                                                     {"int8", {ScalarType::Char, 1}},
                                                                                     {"float16", {ScalarType::Half, 2}},
                                                                                     {"float32", {ScalarType::Float, 4}}};
    const auto entry = table_.find(name);
    if (entry == table_.end()) fail("manifest.json: expected a tensor " + name + " among the weights, found none");
    const Json& tensor = *entry->second;
    const auto type = kTypes.find(tensor["dtype"].string());
    if (type == kTypes.end()) fail(name + ": a tensor of type " + tensor["dtype"].string() + " is not known here");
    auto shape = tensor["shape"].numbers<SizesType>();
    std::size_t number = 0, bytes = type->second.second;
    if (name.rfind("layers.", 0) == 0) {
      number = layers()[layer]["number"].number<std::size_t>();
      shape.erase(shape.begin());
    }
    for (const SizesType size : shape) bytes *= static_cast<std::size_t>(size);
    char* data = weights_.at(tensor["offset"].number<std::size_t>() + number * bytes, bytes);
    return executorch::extension::from_blob(data, shape, type->second.first);
  }

  MappedFile weights_;
  Module module_;
  std::map<std::string, const Json*> table_, kinds_;
};

void add(Values& sums, const std::string& name, const TensorPtr& part) {
  const auto [sum, is_new] = sums.emplace(name, part);
  if (is_new) return;
  float* values = sum->second->mutable_data_ptr<float>();
  for (ssize_t i = 0; i < part->numel(); ++i) values[i] += part->const_data_ptr<float>()[i];
}

// On the way down: `d_GIVE` for each value that the layer gives: the sum of what its takers returned, zeros where there are none.
void owe(const Programs& programs, std::size_t layer, Values& sums, Values& feeds) {
  for (const Json& given : programs.kind(layer)["gives"].array()) {
    const std::string& name = given.string();
    const std::string owed = "d_" + name;
    const Json* value = programs.layers()[layer]["gives"].find(name);
    if (value != nullptr && sums.count(value->string()) != 0) {
      feeds[owed] = sums.at(value->string());
      continue;
    }
    const std::string program = programs.layers()[layer]["kind"].string() + "_forward";
    for (const Json& output : programs.manifest["graphs"][program]["outputs"].array()) {
      if (output["name"].string() == name) feeds[owed] = executorch::extension::zeros(output["shape"].numbers<SizesType>());
    }
  }
}

struct StepResult {
  float loss;
  std::map<std::size_t, TensorPtr> gradients;  // of the trained layers
};

// Loss and gradients. `adapter`: each layer's vector.
StepResult step(Programs& programs, const Layers& train, const Layers& propagate, const Values& batch,
                const std::vector<TensorPtr>& adapter) {
  const std::vector<Json>& layers = programs.layers();
  const std::size_t lowest = *train.begin();
  const Values tables = programs.run("embed", batch);
  std::map<std::size_t, TensorPtr> saved;  // the inputs of the layers that run backward
  std::map<std::string, std::size_t> givers;
  Values crossing, sums;
  TensorPtr h = tables.at("h");
  for (std::size_t layer = 0; layer < layers.size(); ++layer) {
    if (layer >= lowest && propagate.count(layer) != 0) saved[layer] = h;
    const Values forward = programs.run_layer("forward", layer, tables, crossing, {{"h", h}, {"adapter", adapter[layer]}});
    h = forward.at("h_next");
    const Json& gives = layers[layer]["gives"];
    for (std::size_t i = 0; i < gives.keys.size(); ++i) {
      crossing[gives.items[i].string()] = forward.at(gives.keys[i]);
      givers[gives.items[i].string()] = layer;
    }
  }
  const Values head = programs.run("head", {{"h", h}, {"labels", batch.at("labels")}});
  StepResult result{head.at("loss")->const_data_ptr<float>()[0], {}};
  TensorPtr g = head.at("g");
  for (std::size_t layer = layers.size(); layer-- > lowest;) {
    if (propagate.count(layer) == 0) continue;  // g passes unchanged, and nothing of the layer is read
    Values feeds = {{"h", saved.at(layer)}, {"g", g}, {"adapter", adapter[layer]}};
    owe(programs, layer, sums, feeds);
    const Values backward = programs.run_layer("backward", layer, tables, crossing, feeds);
    saved.erase(layer);
    g = backward.at("g_next");
    if (train.count(layer) != 0) result.gradients[layer] = backward.at("d_adapter");
    const Json& takes = layers[layer]["takes"];
    for (std::size_t i = 0; i < takes.keys.size(); ++i) {
      const std::string& value = takes.items[i].string();
      const std::size_t giver = givers.at(value);
      if (giver >= lowest && propagate.count(giver) != 0) add(sums, value, backward.at("d_" + takes.keys[i]));
    }
  }
  return result;
}

double norm_of(const StepResult& result) {
  double squares = 0;
  for (const auto& [layer, gradient] : result.gradients)
    for (ssize_t i = 0; i < gradient->numel(); ++i) squares += std::pow(double(gradient->const_data_ptr<float>()[i]), 2);
  return std::sqrt(squares);
}

// Scales by limit / norm where the norm exceeds the limit.
void clip(const StepResult& result, double norm, double limit) {
  const float factor = static_cast<float>(std::min(1.0, limit / (norm + 1e-6)));
  if (factor == 1) return;
  for (const auto& [layer, gradient] : result.gradients)
    for (ssize_t i = 0; i < gradient->numel(); ++i) gradient->mutable_data_ptr<float>()[i] *= factor;
}

// AdamW's state. One vector a layer: parameters, first and second moment.
struct Optimizer {
  std::vector<TensorPtr> parameters, first, second;
  std::vector<int> updates;  // how often each layer was updated

  // A layer that was not trained is moved by its momentum, with a zero gradient, where the manifest says so. One that no step of the schedule
  // trains is left alone: weight decay would shrink it.
  void update(Programs& programs, const StepResult& result, double learning_rate) {
    const Json& config = programs.manifest["optimizer"];
    const bool momentum = config["implicit_updates"].string() == "momentum";
    const double beta1 = config["betas"].array().at(0).number<double>(), beta2 = config["betas"].array().at(1).number<double>();
    for (std::size_t layer = 0; layer < parameters.size(); ++layer) {
      const auto found = result.gradients.find(layer);
      if (found == result.gradients.end() && !(momentum && is_trained(programs.manifest["schedule"], layer))) continue;
      const TensorPtr gradient =
          found != result.gradients.end() ? found->second : executorch::extension::zeros({SizesType(parameters[layer]->numel())});
      const int count = ++updates[layer];
      Values updated = programs.run(
          "adamw", {{"parameters", parameters[layer]},
                    {"first_moment", first[layer]},
                    {"second_moment", second[layer]},
                    {"gradient", gradient},
                    {"decay", scalar(1 - learning_rate * config["weight_decay"].number<double>())},
                    {"rate", scalar(learning_rate / (1 - std::pow(beta1, count)))},
                    {"root", scalar(std::sqrt(1 - std::pow(beta2, count)))}});
      parameters[layer] = updated.at("parameters_next");
      first[layer] = updated.at("first_moment_next");
      second[layer] = updated.at("second_moment_next");
    }
  }

 private:
  static bool is_trained(const Json& schedule, std::size_t layer) {
    for (const Json& step : schedule.array())
      for (const std::size_t trained : step["train"].numbers<std::size_t>())
        if (trained == layer) return true;
    return false;
  }

  static TensorPtr scalar(double value) { return executorch::extension::make_tensor_ptr(static_cast<float>(value)); }
};

// The initial adapter out of its safetensors file: eight bytes of the header's length, the header, the data.
Optimizer initial_state(const Programs& programs, const std::string& path) {
  const std::string file = read_file(path);
  std::uint64_t length = 0;
  if (file.size() < sizeof length) fail(path + ": not a safetensors file");
  std::memcpy(&length, file.data(), sizeof length);
  if (length > file.size() - sizeof length) fail(path + ": not a safetensors file");
  const Json header = Json::parse(file.substr(sizeof length, length));
  const std::size_t data = sizeof length + length;
  const std::string prefix = "base_model.model." + programs.manifest["model"]["tensor_prefix"].string() + "layers.";
  Optimizer state;
  for (std::size_t layer = 0; layer < programs.layers().size(); ++layer) {
    const Json& kind = programs.kind(layer);
    const std::size_t size = kind["size"].number<std::size_t>();
    std::vector<float> vector(size);
    for (const Json& matrix : kind["matrices"].array()) {
      const std::string name = prefix + std::to_string(layer) + "." + matrix["name"].string() + ".weight";
      const auto range = header[name]["data_offsets"].numbers<std::size_t>();
      const std::size_t offset = matrix["offset"].number<std::size_t>(), start = range.at(0), bytes = range.at(1) - start;
      if (start > file.size() - data || bytes > file.size() - data - start || offset > size || bytes / sizeof(float) > size - offset)
        fail(path + ": " + name + " does not fit");
      std::memcpy(&vector[offset], &file[data + start], bytes);
    }
    state.parameters.push_back(executorch::extension::make_tensor_ptr(std::move(vector)));
    state.first.push_back(executorch::extension::zeros({SizesType(size)}));
    state.second.push_back(executorch::extension::zeros({SizesType(size)}));
    state.updates.push_back(0);
  }
  return state;
}

void run_cycle(const std::string& bundle) {
  Programs programs(bundle);
  const Json golden = read_json(bundle + "/golden.json");
  if (golden["run"].array().empty()) fail(bundle + "/golden.json: expected a recorded run, found none");
  const Json& recorded = golden["batches"].array().at(golden["run"].array()[0]["batch"].number<std::size_t>());
  Values batch;
  for (const char* name : {"input_ids", "labels", "position_ids", "segment_ids"})
    batch[name] = executorch::extension::make_tensor_ptr(recorded[name].numbers<std::int64_t>());
  Optimizer optimizer = initial_state(programs, bundle + "/adapter.safetensors");
  int number = 0;
  for (const Json& subset : programs.manifest["schedule"].array()) {
    const StepResult result =
        step(programs, layer_set(subset["train"]), layer_set(subset["propagate"]), batch, optimizer.parameters);
    const double norm = norm_of(result);
    if (!std::isfinite(result.loss) || !std::isfinite(norm)) fail("the loss or the gradient is not finite; nothing was updated by it");
    clip(result, norm, programs.manifest["optimizer"]["clip_norm"].number<double>());
    optimizer.update(programs, result, golden["learning_rate"].number<double>());
    std::printf("{\"step\": %d, \"loss\": %.9g, \"gradient_norm\": %.9g}\n", ++number, result.loss, norm);
    std::fflush(stdout);
  }
}

}  // namespace

int main(int count, char** arguments) {
  try {
    if (count != 2) fail("expected one argument, the directory of a bundle");
    run_cycle(arguments[1]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "error: %s\n", error.what());
    return 2;
  }
}
