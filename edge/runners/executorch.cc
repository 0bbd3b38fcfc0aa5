// ExecuTorch: a .pte file through its Module, with XNNPACK's delegate and the kernels of the host's Python bindings.

#include <executorch/extension/module/module.h>
#include <executorch/extension/tensor/tensor.h>

#include <cstring>

#include "runner.h"

namespace executorch::extension::threadpool {

// Exported by libexecutorch_threadpool.so; the wheel lacks threadpool.h.
class ThreadPool {
 public:
  bool _unsafe_reset_threadpool(uint32_t threads);
};
ThreadPool* get_threadpool();

}  // namespace executorch::extension::threadpool

namespace {

using executorch::aten::ScalarType;
using executorch::extension::from_blob;
using executorch::extension::Module;
using executorch::extension::TensorPtr;
using executorch::runtime::Error;
using executorch::runtime::EValue;
using executorch::runtime::Program;
using executorch::runtime::Result;

void check(Error error, const std::string& what) {
  if (error != Error::Ok)
    throw std::runtime_error(what + ": " + executorch::runtime::to_string(error));
}

template <typename Value>
Value checked(Result<Value> result, const std::string& what) {
  check(result.error(), what);
  return std::move(result.get());
}

class Method : public Artifact {
 public:
  Method(const std::string& path, const std::vector<Port>& inputs, const std::vector<Port>& outputs)
      : module_(path, Module::LoadMode::File) {
    check(module_.load(Program::Verification::InternalConsistency), path + " is not a whole ExecuTorch program");
    check(module_.load_forward(), path + " could not be loaded");
    const auto meta = checked(module_.method_meta("forward"), "its method has no description");
    expect_counts(inputs, meta.num_inputs(), outputs, meta.num_outputs());
    for (size_t index = 0; index < inputs.size(); ++index) {
      const auto tensor = checked(meta.input_tensor_meta(index), "input " + inputs[index].name + " is no tensor");
      if (tensor.scalar_type() != ScalarType::Float)
        throw std::runtime_error("input " + inputs[index].name + " is not float32");
      expect_shape(inputs[index], {tensor.sizes().begin(), tensor.sizes().end()});
      samples_.emplace_back(elements(inputs[index].shape));
      tensors_.push_back(from_blob(samples_.back().data(), {tensor.sizes().begin(), tensor.sizes().end()}));
      arguments_.emplace_back(tensors_.back());
    }
  }

  void set_input(size_t index, std::span<const float> values) override {
    std::memcpy(samples_[index].data(), values.data(), values.size_bytes());
  }

  void infer() override { results_ = checked(module_.forward(arguments_), "the inference failed"); }

  ::Result output(size_t index) override {
    const auto tensor = results_.at(index).toTensor();
    if (tensor.scalar_type() != ScalarType::Float)
      throw std::runtime_error("output " + std::to_string(index) + " is not float32");
    return {{tensor.sizes().begin(), tensor.sizes().end()},
            {tensor.const_data_ptr<float>(), static_cast<size_t>(tensor.numel())}};
  }

 private:
  Module module_;
  std::vector<std::vector<float>> samples_;
  std::vector<TensorPtr> tensors_;
  std::vector<EValue> arguments_, results_;
};

}  // namespace

std::unique_ptr<Artifact> load(const std::string& path, int threads, const std::vector<Port>& inputs,
                               const std::vector<Port>& outputs) {
  if (!executorch::extension::threadpool::get_threadpool()->_unsafe_reset_threadpool(static_cast<uint32_t>(threads)))
    throw std::runtime_error("ExecuTorch would not take the number of threads");
  return std::make_unique<Method>(path, inputs, outputs);
}
