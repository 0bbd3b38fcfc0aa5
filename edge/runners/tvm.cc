// TVM: a shared library whose program runs in TVM's virtual machine.

#include <elf.h>
#include <tvm/ffi/container/array.h>
#include <tvm/ffi/container/tensor.h>
#include <tvm/ffi/extra/module.h>
#include <tvm/ffi/function.h>

#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "runner.h"

namespace {

namespace ffi = tvm::ffi;

constexpr int kPooledAllocator = 2;  // relax.VirtualMachine's default

struct Memory {
  void AllocData(DLTensor* tensor) { tensor->data = std::aligned_alloc(64, (ffi::GetDataSize(*tensor) + 63) / 64 * 64); }
  void FreeData(DLTensor* tensor) { std::free(tensor->data); }
};

// The loader maps a shortened file without complaint and the process dies later, so look at its end first: the linker
// writes the table of sections last.
void expect_whole(const std::string& path) {
  Elf64_Ehdr header{};
  std::ifstream(path, std::ios::binary).read(reinterpret_cast<char*>(&header), sizeof header);
  if (std::memcmp(header.e_ident, ELFMAG, SELFMAG)) throw std::runtime_error(path + " is not a shared library");
  const auto needed = header.e_shoff + uint64_t{header.e_shentsize} * header.e_shnum;
  if (const auto size = std::filesystem::file_size(path); size < needed)
    throw std::runtime_error(path + " is truncated: " + std::to_string(size) + " of " + std::to_string(needed) +
                             " bytes");
}

ffi::Function function(const ffi::Module& module, const char* name) {
  const auto found = module->GetFunction(name);
  if (!found.has_value()) throw std::runtime_error(std::string("the library has no function ") + name);
  return *found;
}

class Library : public Artifact {
 public:
  Library(const std::string& path, const std::vector<Port>& inputs, size_t outputs)
      : module_(ffi::Module::LoadFromFile(path)),
        machine_(function(module_, "vm_load_executable")().cast<ffi::Module>()),
        results_(outputs) {
    function(machine_, "vm_initialization")(static_cast<int>(kDLCPU), 0, kPooledAllocator);
    main_ = function(machine_, "main");
    for (const Port& port : inputs) {
      inputs_.push_back(ffi::Tensor::FromNDAlloc(Memory(), ffi::Shape(port.shape.begin(), port.shape.end()),
                                                 DLDataType{kDLFloat, 32, 1}, DLDevice{kDLCPU, 0}));
      arguments_.emplace_back(inputs_.back());
    }
  }

  void set_input(size_t index, std::span<const float> values) override {
    std::memcpy(inputs_[index].data_ptr(), values.data(), values.size_bytes());
  }

  // The virtual machine compares number, types and shapes of the arguments with the program's own.
  void infer() override {
    main_.CallPacked(arguments_.data(), static_cast<int32_t>(arguments_.size()), &answer_);
  }

  Result output(size_t index) override {
    if (index == 0) unpack();
    const ffi::Tensor& tensor = results_[index];
    if (tensor.dtype() != DLDataType{kDLFloat, 32, 1} || !tensor.IsContiguous())
      throw std::runtime_error("output " + std::to_string(index) + " is not float32 in C order");
    return {Shape(tensor.shape().begin(), tensor.shape().end()),
            {static_cast<const float*>(tensor.data_ptr()), static_cast<size_t>(tensor.numel())}};
  }

 private:
  void unpack() {
    if (auto single = answer_.try_cast<ffi::Tensor>()) {
      results_.assign(1, *single);
    } else {
      const auto several = answer_.cast<ffi::Array<ffi::Tensor>>();
      results_.assign(several.begin(), several.end());
    }
  }

  ffi::Module module_, machine_;
  ffi::Function main_;
  std::vector<ffi::Tensor> inputs_;
  std::vector<ffi::AnyView> arguments_;
  ffi::Any answer_;
  std::vector<ffi::Tensor> results_;
};

}  // namespace

std::unique_ptr<Artifact> load(const std::string& path, int threads, const std::vector<Port>& inputs,
                               const std::vector<Port>& outputs) {
  expect_whole(path);
  setenv("TVM_NUM_THREADS", std::to_string(threads).c_str(), 1);
  setenv("TVM_BIND_THREADS", "0", 1);  // The device is not ours alone: no core is claimed.
  return std::make_unique<Library>(path, inputs, outputs.size());
}
