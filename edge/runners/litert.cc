// LiteRT: a .tflite file through the C API of libLiteRt.so, on its CPU accelerator (XNNPACK, and LiteRT's own kernels
// for what XNNPACK leaves). The wheel holds no headers: what is used of them is declared here, with its binary layout.

#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "runner.h"

extern "C" {

using LiteRtEnvironment = struct LiteRtEnvironmentT*;
using LiteRtModel = struct LiteRtModelT*;
using LiteRtSignature = struct LiteRtSignatureT*;
using LiteRtTensor = struct LiteRtTensorT*;
using LiteRtOptions = struct LiteRtOptionsT*;
using LiteRtOpaqueOptions = struct LiteRtOpaqueOptionsT*;
using LiteRtCompiledModel = struct LiteRtCompiledModelT*;
using LiteRtTensorBuffer = struct LiteRtTensorBufferT*;
using LiteRtTensorBufferRequirements = struct LiteRtTensorBufferRequirementsT*;

struct LiteRtLayout {
  unsigned int rank : 7;
  unsigned int has_strides : 1;
  int32_t dimensions[8];
  uint32_t strides[8];
};
static_assert(sizeof(LiteRtLayout) == 68 && offsetof(LiteRtLayout, dimensions) == 4);

struct LiteRtRankedTensorType {
  int element_type;
  LiteRtLayout layout;
};
static_assert(sizeof(LiteRtRankedTensorType) == 72 && offsetof(LiteRtRankedTensorType, layout) == 4);

enum { kLiteRtHwAcceleratorCpu = 1, kLiteRtElementTypeFloat32 = 1 };
enum LiteRtTensorBufferLockMode { kRead = 0, kWrite = 1 };
using LiteRtStatus = int;

LiteRtStatus LiteRtCreateEnvironment(int, const void*, LiteRtEnvironment*);
void LiteRtDestroyEnvironment(LiteRtEnvironment);
LiteRtStatus LiteRtCreateModelFromFile(LiteRtEnvironment, const char*, LiteRtModel*);
void LiteRtDestroyModel(LiteRtModel);
LiteRtStatus LiteRtGetModelSignature(LiteRtModel, size_t, LiteRtSignature*);
LiteRtStatus LiteRtGetNumSignatureInputs(LiteRtSignature, size_t*);
LiteRtStatus LiteRtGetNumSignatureOutputs(LiteRtSignature, size_t*);
LiteRtStatus LiteRtGetSignatureInputName(LiteRtSignature, size_t, const char**);
LiteRtStatus LiteRtGetSignatureOutputName(LiteRtSignature, size_t, const char**);
LiteRtStatus LiteRtGetSignatureInputTensorByIndex(LiteRtSignature, size_t, LiteRtTensor*);
LiteRtStatus LiteRtGetSignatureOutputTensorByIndex(LiteRtSignature, size_t, LiteRtTensor*);
LiteRtStatus LiteRtGetRankedTensorType(LiteRtTensor, LiteRtRankedTensorType*);
LiteRtStatus LiteRtCreateOptions(LiteRtOptions*);
void LiteRtDestroyOptions(LiteRtOptions);
LiteRtStatus LiteRtSetOptionsHardwareAccelerators(LiteRtOptions, int);
LiteRtStatus LiteRtCreateOpaqueOptions(const char*, void*, void (*)(void*), LiteRtOpaqueOptions*);
LiteRtStatus LiteRtAddOpaqueOptions(LiteRtOptions, LiteRtOpaqueOptions);
LiteRtStatus LiteRtCreateCompiledModel(LiteRtEnvironment, LiteRtModel, LiteRtOptions, LiteRtCompiledModel*);
void LiteRtDestroyCompiledModel(LiteRtCompiledModel);
LiteRtStatus LiteRtGetCompiledModelInputBufferRequirements(LiteRtCompiledModel, size_t, size_t,
                                                           LiteRtTensorBufferRequirements*);
LiteRtStatus LiteRtGetCompiledModelOutputBufferRequirements(LiteRtCompiledModel, size_t, size_t,
                                                            LiteRtTensorBufferRequirements*);
LiteRtStatus LiteRtCreateManagedTensorBufferFromRequirements(LiteRtEnvironment, const LiteRtRankedTensorType*,
                                                             LiteRtTensorBufferRequirements, LiteRtTensorBuffer*);
void LiteRtDestroyTensorBuffer(LiteRtTensorBuffer);
LiteRtStatus LiteRtLockTensorBuffer(LiteRtTensorBuffer, void**, LiteRtTensorBufferLockMode);
LiteRtStatus LiteRtUnlockTensorBuffer(LiteRtTensorBuffer);
LiteRtStatus LiteRtRunCompiledModel(LiteRtCompiledModel, size_t, size_t, LiteRtTensorBuffer*, size_t,
                                    LiteRtTensorBuffer*);
}

namespace {

void check(LiteRtStatus status, const char* what) {
  if (status) throw std::runtime_error(std::string(what) + ": LiteRT's status " + std::to_string(status));
}

// Destroys what LiteRT made.
template <auto destroy>
struct Destroy {
  template <typename Handle>
  void operator()(Handle* handle) const {
    destroy(handle);
  }
};
template <typename Handle, auto destroy>
using Owned = std::unique_ptr<std::remove_pointer_t<Handle>, Destroy<destroy>>;

using Environment = Owned<LiteRtEnvironment, LiteRtDestroyEnvironment>;
using Model = Owned<LiteRtModel, LiteRtDestroyModel>;
using Options = Owned<LiteRtOptions, LiteRtDestroyOptions>;
using CompiledModel = Owned<LiteRtCompiledModel, LiteRtDestroyCompiledModel>;
using Buffer = Owned<LiteRtTensorBuffer, LiteRtDestroyTensorBuffer>;

Environment make_environment() {
  LiteRtEnvironment environment = nullptr;
  check(LiteRtCreateEnvironment(0, nullptr, &environment), "no environment");
  return Environment(environment);
}

Model read_model(LiteRtEnvironment environment, const std::string& path) {
  LiteRtModel model = nullptr;
  check(LiteRtCreateModelFromFile(environment, path.c_str(), &model), (path + " is not a whole .tflite file").c_str());
  return Model(model);
}

CompiledModel compile(LiteRtEnvironment environment, LiteRtModel model, int threads) {
  LiteRtOptions handle = nullptr;
  check(LiteRtCreateOptions(&handle), "no options");
  const Options options(handle);
  check(LiteRtSetOptionsHardwareAccelerators(options.get(), kLiteRtHwAcceleratorCpu), "no CPU accelerator");
  // The CPU accelerator's options travel as text in TOML, under the name of its delegate.
  LiteRtOpaqueOptions cpu = nullptr;
  char* text = strdup(("num_threads = " + std::to_string(threads) + "\n").c_str());
  check(LiteRtCreateOpaqueOptions("xnnpack", text, std::free, &cpu), "no options for the CPU");
  check(LiteRtAddOpaqueOptions(options.get(), cpu), "the options for the CPU are not taken");
  LiteRtCompiledModel compiled = nullptr;
  check(LiteRtCreateCompiledModel(environment, model, options.get(), &compiled), "the model cannot be prepared");
  return CompiledModel(compiled);
}

// A tensor of the signature, with the buffer that the compiled model reads or writes.
struct Tensor {
  std::string name;
  Shape shape;
  Buffer buffer;
};

// One side of the signature, inputs or outputs: LiteRT's API has each call twice.
struct Side {
  LiteRtStatus (*count)(LiteRtSignature, size_t*);
  LiteRtStatus (*name)(LiteRtSignature, size_t, const char**);
  LiteRtStatus (*tensor)(LiteRtSignature, size_t, LiteRtTensor*);
  LiteRtStatus (*requirements)(LiteRtCompiledModel, size_t, size_t, LiteRtTensorBufferRequirements*);
};
constexpr Side kInputs{LiteRtGetNumSignatureInputs, LiteRtGetSignatureInputName, LiteRtGetSignatureInputTensorByIndex,
                       LiteRtGetCompiledModelInputBufferRequirements};
constexpr Side kOutputs{LiteRtGetNumSignatureOutputs, LiteRtGetSignatureOutputName,
                        LiteRtGetSignatureOutputTensorByIndex, LiteRtGetCompiledModelOutputBufferRequirements};

class CompiledFile : public Artifact {
 public:
  CompiledFile(const std::string& path, int threads, const std::vector<Port>& inputs, const std::vector<Port>& outputs)
      : environment_(make_environment()),
        model_(read_model(environment_.get(), path)),
        compiled_(compile(environment_.get(), model_.get(), threads)),
        inputs_(tensors(kInputs)),
        outputs_(tensors(kOutputs)) {
    expect_counts(inputs, inputs_.size(), outputs, outputs_.size());
    for (const Port& port : inputs) {
      input_order_.push_back(find(inputs_, port));
      expect_shape(port, inputs_[input_order_.back()].shape);
    }
    for (const Port& port : outputs) {
      output_order_.push_back(find(outputs_, port));
      values_.emplace_back(elements(outputs_[output_order_.back()].shape));
    }
    for (const Tensor& tensor : inputs_) input_buffers_.push_back(tensor.buffer.get());
    for (const Tensor& tensor : outputs_) output_buffers_.push_back(tensor.buffer.get());
  }

  void set_input(size_t index, std::span<const float> values) override {
    const LiteRtTensorBuffer buffer = input_buffers_[input_order_[index]];
    void* memory = nullptr;
    check(LiteRtLockTensorBuffer(buffer, &memory, kWrite), "an input cannot be written");
    std::memcpy(memory, values.data(), values.size_bytes());
    check(LiteRtUnlockTensorBuffer(buffer), "an input cannot be written");
  }

  void infer() override {
    check(LiteRtRunCompiledModel(compiled_.get(), 0, input_buffers_.size(), input_buffers_.data(),
                                 output_buffers_.size(), output_buffers_.data()),
          "the inference failed");
  }

  Result output(size_t index) override {
    const LiteRtTensorBuffer buffer = output_buffers_[output_order_[index]];
    std::vector<float>& values = values_[index];
    void* memory = nullptr;
    check(LiteRtLockTensorBuffer(buffer, &memory, kRead), "an output cannot be read");
    std::memcpy(values.data(), memory, values.size() * sizeof(float));
    check(LiteRtUnlockTensorBuffer(buffer), "an output cannot be read");
    return {outputs_[output_order_[index]].shape, values};
  }

 private:
  std::vector<Tensor> tensors(const Side& side) const {
    LiteRtSignature signature = nullptr;
    size_t count = 0;
    check(LiteRtGetModelSignature(model_.get(), 0, &signature), "the model has no signature");
    check(side.count(signature, &count), "the signature cannot be read");
    std::vector<Tensor> tensors;
    for (size_t index = 0; index < count; ++index) {
      const char* name = nullptr;
      LiteRtTensor tensor = nullptr;
      LiteRtRankedTensorType type{};
      LiteRtTensorBufferRequirements requirements = nullptr;
      LiteRtTensorBuffer buffer = nullptr;
      check(side.name(signature, index, &name), "the signature cannot be read");
      check(side.tensor(signature, index, &tensor), "the signature cannot be read");
      check(LiteRtGetRankedTensorType(tensor, &type), "a tensor has no fixed shape");
      if (type.element_type != kLiteRtElementTypeFloat32)
        throw std::runtime_error(std::string(name) + " is not float32");
      check(side.requirements(compiled_.get(), 0, index, &requirements), "a tensor asks for no memory");
      check(LiteRtCreateManagedTensorBufferFromRequirements(environment_.get(), &type, requirements, &buffer),
            "a tensor cannot be allocated");
      const LiteRtLayout& layout = type.layout;
      tensors.push_back({name, Shape(layout.dimensions, layout.dimensions + layout.rank), Buffer(buffer)});
    }
    return tensors;
  }

  static size_t find(const std::vector<Tensor>& tensors, const Port& port) {
    for (size_t index = 0; index < tensors.size(); ++index)
      if (tensors[index].name == port.name) return index;
    throw std::runtime_error("the signature has no " + port.name);
  }

  Environment environment_;
  Model model_;
  CompiledModel compiled_;
  std::vector<Tensor> inputs_, outputs_;  // in the signature's order
  std::vector<size_t> input_order_, output_order_;  // the caller's order, as indices into the signature's
  std::vector<LiteRtTensorBuffer> input_buffers_, output_buffers_;
  std::vector<std::vector<float>> values_;
};

}  // namespace

std::unique_ptr<Artifact> load(const std::string& path, int threads, const std::vector<Port>& inputs,
                               const std::vector<Port>& outputs) {
  return std::make_unique<CompiledFile>(path, threads, inputs, outputs);
}
