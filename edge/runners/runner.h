// A native runner: runs one saved artifact on raw inputs, where there is no Python. One program a runtime: runner.cc,
// which all share, and one file that implements `load` below.
//
//   run ARTIFACT --threads T --samples N --warmups W --repeats R --limit SECONDS
//       --input NAME=FILE:1x224x224x3 [--input …] --output NAME=FILE [--output …]
//
// NAME is the tensor's own name inside the artifact. A runtime whose inputs and outputs have no names (TVM, ExecuTorch)
// takes them in the order given. An input FILE holds N samples one after the other: float32, little-endian, C order, in
// the artifact's own layout; an output FILE is written the same way. Each sample runs once, and then the last one again,
// W times untimed and R times timed. The region markers surround exactly the last inference of all.
//
// stdout carries one JSON object a line and nothing else; what the runtime prints goes to stderr.
//
//   {"event":"loaded","libraries":[{"path":…,"base":…},…]}   what is mapped once the artifact is loaded, and where
//   {"event":"ran","seconds":[…N],"repeats":[…R],"outputs":[[1,1000],…],"peak_memory_kib":…}        then exit status 0
//   {"event":"failed","reason":…}                                                                   then exit status 1
//   {"event":"illegal","word":"4e809420","library":…,"offset":…,"symbol":…}   the core lacks it;    then exit status 3
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

using Shape = std::vector<int64_t>;

// One input or output: `name` and, for an input, `shape` as the command line gave them.
struct Port {
  std::string name;
  std::string file;
  Shape shape;
};

// An output as the artifact left it, valid until the next inference.
struct Result {
  Shape shape;
  std::span<const float> values;
};

// A loaded artifact. All throw std::exception; the message becomes the reason.
class Artifact {
 public:
  virtual ~Artifact() = default;
  // Copies one sample into the input of that index.
  virtual void set_input(size_t index, std::span<const float> values) = 0;
  // One inference: what is timed and counted.
  virtual void infer() = 0;
  virtual Result output(size_t index) = 0;
};

// Loads a file for so many threads, and checks that its inputs and outputs are those asked for, in float32.
std::unique_ptr<Artifact> load(const std::string& path, int threads, const std::vector<Port>& inputs,
                               const std::vector<Port>& outputs);

// "1x224x224x3"
std::string to_string(const Shape& shape);

size_t elements(const Shape& shape);

// Throws unless `actual` is what the command line said of the port.
void expect_shape(const Port& port, const Shape& actual);

// Throws unless an artifact has so many inputs and outputs.
void expect_counts(const std::vector<Port>& inputs, size_t actual_inputs, const std::vector<Port>& outputs,
                   size_t actual_outputs);
