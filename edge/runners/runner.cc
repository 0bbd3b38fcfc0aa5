// What every native runner shares: arguments, the loop over samples, timing, files, events, and how it dies.

#include "runner.h"

#include <dlfcn.h>
#include <limits.h>
#include <link.h>
#include <signal.h>
#include <sys/resource.h>
#include <ucontext.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "regions.h"
#include "symbols.h"

namespace {

int events = -1;            // the caller's stdout; the runtime gets stderr in its place
char program[PATH_MAX];     // this program: the loader does not know the name of what it was told to start
char over_limit[128];       // said by the alarm's handler, which must not format anything

enum ExitStatus { kRan = 0, kFailed = 1, kIllegal = 3 };

// One line of JSON. Allocates nothing, so that a signal handler can write one too.
class Line {
 public:
  Line& raw(const char* text) {
    while (*text) put(*text++);
    return *this;
  }

  Line& quoted(const char* text) {
    put('"');
    for (; *text; ++text) {
      const auto character = static_cast<unsigned char>(*text);
      if (character < 0x20) {
        put(' ');
        continue;
      }
      if (character == '"' || character == '\\') put('\\');
      put(*text);
    }
    put('"');
    return *this;
  }

  Line& number(uint64_t value) { return formatted("%llu", static_cast<unsigned long long>(value)); }
  Line& word(uint32_t value) { return formatted("\"%08x\"", value); }
  Line& seconds(double value) { return formatted("%.9f", value); }

  void end() {
    put('\n');
    flush();
  }

 private:
  template <typename Value>
  Line& formatted(const char* format, Value value) {
    char text[32];
    snprintf(text, sizeof text, format, value);
    return raw(text);
  }

  void put(char character) {
    if (used_ == sizeof buffer_) flush();
    buffer_[used_++] = character;
  }

  void flush() {
    for (size_t written = 0; written < used_;) {
      const ssize_t count = write(events, buffer_ + written, used_ - written);
      if (count < 0 && errno == EINTR) continue;
      if (count < 0) _exit(kFailed);  // Nobody can be told.
      written += static_cast<size_t>(count);
    }
    used_ = 0;
  }

  char buffer_[1024];
  size_t used_ = 0;
};

[[noreturn]] void on_limit(int) {
  Line().raw("{\"event\":\"failed\",\"reason\":").quoted(over_limit).raw("}").end();
  _exit(kFailed);
}

// Ends the program where it stands and says where that is. dladdr takes the loader's lock: should that be held, the
// handler hangs and the alarm ends it.
[[noreturn]] void on_fault(int signal, siginfo_t*, void* context) {
  const uint64_t pc = static_cast<ucontext_t*>(context)->uc_mcontext.pc;
  Dl_info library{};
  const bool mapped = dladdr(reinterpret_cast<void*>(pc), &library);
  const uint64_t offset = mapped ? pc - reinterpret_cast<uintptr_t>(library.dli_fbase) : pc;
  char path[PATH_MAX] = "", symbol[256] = "";
  if (mapped && realpath(library.dli_fname, path)) find_symbol(path, offset, symbol, sizeof symbol);
  if (signal == SIGILL) {
    Line line;
    line.raw("{\"event\":\"illegal\",\"word\":").word(*reinterpret_cast<const uint32_t*>(pc));
    line.raw(",\"library\":").quoted(path).raw(",\"offset\":").number(offset);
    line.raw(",\"symbol\":").quoted(symbol).raw("}").end();
    _exit(kIllegal);
  }
  char reason[PATH_MAX + 512];
  snprintf(reason, sizeof reason, "died with SIG%s in %s at offset %#llx of %s", sigabbrev_np(signal),
           *symbol ? symbol : "an unnamed function", static_cast<unsigned long long>(offset), path);
  Line().raw("{\"event\":\"failed\",\"reason\":").quoted(reason).raw("}").end();
  _exit(kFailed);
}

void handle_signals(unsigned limit_s) {
  // A stack of its own: the fault may be that there is none left.
  static char memory[64 * 1024];
  stack_t stack{};
  stack.ss_sp = memory;
  stack.ss_size = sizeof memory;
  sigaltstack(&stack, nullptr);
  struct sigaction fault {};
  fault.sa_sigaction = on_fault;
  fault.sa_flags = SA_SIGINFO | SA_ONSTACK;
  for (const int signal : {SIGILL, SIGSEGV, SIGBUS, SIGFPE, SIGABRT}) sigaction(signal, &fault, nullptr);

  snprintf(over_limit, sizeof over_limit, "passed its limit of %u s", limit_s);
  signal(SIGALRM, on_limit);
  alarm(limit_s);
}

struct Arguments {
  std::string artifact;
  unsigned threads = 0, samples = 0, warmups = 0, repeats = 0, limit_s = 0;
  std::vector<Port> inputs, outputs;
};

unsigned to_number(const std::string& text) {
  size_t end = 0;
  const long value = text.empty() || !isdigit(text[0]) ? -1 : std::stol(text, &end);
  if (value < 0 || value > INT_MAX || end != text.size()) throw std::invalid_argument("not a number: " + text);
  return static_cast<unsigned>(value);
}

Shape to_shape(const std::string& text) {
  Shape shape;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find('x', begin), text.size());
    shape.push_back(to_number(text.substr(begin, end - begin)));
    begin = end + 1;
  }
  return shape;
}

Port to_port(const std::string& text, bool with_shape) {
  const size_t equals = text.find('=');
  const size_t colon = with_shape ? text.rfind(':') : text.size();
  if (equals == std::string::npos || colon == std::string::npos || colon < equals)
    throw std::invalid_argument("not NAME=FILE" + std::string(with_shape ? ":SHAPE: " : ": ") + text);
  return {text.substr(0, equals), text.substr(equals + 1, colon - equals - 1),
          with_shape ? to_shape(text.substr(colon + 1)) : Shape{}};
}

Arguments parse(const std::vector<std::string>& words) {
  if (words.size() % 2 == 0) throw std::invalid_argument("usage: run ARTIFACT --OPTION VALUE …, as runner.h says");
  Arguments arguments;
  arguments.artifact = words[0];
  for (size_t index = 1; index < words.size(); index += 2) {
    const std::string &option = words[index], &value = words[index + 1];
    if (option == "--threads") arguments.threads = to_number(value);
    else if (option == "--samples") arguments.samples = to_number(value);
    else if (option == "--warmups") arguments.warmups = to_number(value);
    else if (option == "--repeats") arguments.repeats = to_number(value);
    else if (option == "--limit") arguments.limit_s = to_number(value);
    else if (option == "--input") arguments.inputs.push_back(to_port(value, true));
    else if (option == "--output") arguments.outputs.push_back(to_port(value, false));
    else throw std::invalid_argument("unknown option: " + option);
  }
  if (!arguments.threads || !arguments.samples || !arguments.limit_s)
    throw std::invalid_argument("--threads, --samples and --limit must be given and not be 0");
  return arguments;
}

// An input file, one sample at a time.
class Samples {
 public:
  Samples(const Port& port, unsigned count) : file_(port.file, std::ios::binary), sample_(elements(port.shape)) {
    const auto needed = count * sample_.size() * sizeof(float);
    std::error_code error;
    const auto size = std::filesystem::file_size(port.file, error);
    if (error || size != needed)
      throw std::runtime_error(port.file + " holds " + (error ? "nothing" : std::to_string(size) + " bytes") + ", " +
                               std::to_string(needed) + " needed");
  }

  std::span<const float> next() {
    file_.read(reinterpret_cast<char*>(sample_.data()), static_cast<std::streamsize>(sample_.size() * sizeof(float)));
    if (!file_) throw std::runtime_error("an input file ended early");
    return sample_;
  }

 private:
  std::ifstream file_;
  std::vector<float> sample_;
};

// An output file. What was not written, down to the last byte, is an error: the disk may be full.
class Output {
 public:
  explicit Output(const std::string& path) : path_(path), file_(std::fopen(path.c_str(), "wb"), std::fclose) {
    if (!file_) fail();
  }

  void append(std::span<const float> values) {
    if (std::fwrite(values.data(), sizeof(float), values.size(), file_.get()) != values.size()) fail();
  }

  void close() {
    if (std::fclose(file_.release())) fail();
  }

 private:
  [[noreturn]] void fail() const {
    throw std::runtime_error("could not write " + path_ + ": " + std::strerror(errno));
  }

  std::string path_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> file_;
};

// Wall time of one inference in seconds.
double timed(Artifact& artifact) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  artifact.infer();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// The same between the markers, which so stand in one place of the program only.
[[gnu::noinline]] double timed_and_marked(Artifact& artifact) {
  using Clock = std::chrono::steady_clock;
  const auto begin = Clock::now();
  region_begin();
  artifact.infer();
  region_end();
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

void report_loaded() {
  Line line;
  line.raw("{\"event\":\"loaded\",\"libraries\":[");
  struct State {
    Line& line;
    const char* separator;
  } state{line, ""};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& [line, separator] = *static_cast<State*>(data);
        char path[PATH_MAX];
        const char* name = *info->dlpi_name ? info->dlpi_name : program;
        line.raw(separator).raw("{\"path\":").quoted(realpath(name, path) ? path : name);
        line.raw(",\"base\":").number(info->dlpi_addr).raw("}");
        separator = ",";
        return 0;
      },
      &state);
  line.raw("]}").end();
}

void report_ran(const std::vector<double>& seconds, const std::vector<double>& repeats,
                const std::vector<Shape>& outputs) {
  Line line;
  line.raw("{\"event\":\"ran\"");
  const auto list = [&line](const char* key, const auto& values, const auto& write) {
    line.raw(key);
    const char* separator = "";
    for (const auto& value : values) {
      line.raw(separator);
      write(value);
      separator = ",";
    }
    line.raw("]");
  };
  list(",\"seconds\":[", seconds, [&](double value) { line.seconds(value); });
  list(",\"repeats\":[", repeats, [&](double value) { line.seconds(value); });
  list(",\"outputs\":[", outputs, [&](const Shape& shape) {
    list("[", shape, [&](int64_t size) { line.number(static_cast<uint64_t>(size)); });
  });
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  line.raw(",\"peak_memory_kib\":").number(static_cast<uint64_t>(usage.ru_maxrss)).raw("}").end();
}

void run(const Arguments& arguments) {
  std::vector<Samples> inputs;
  for (const Port& port : arguments.inputs) inputs.emplace_back(port, arguments.samples);
  std::vector<Output> files;
  for (const Port& port : arguments.outputs) files.emplace_back(port.file);
  const auto artifact =
      load(arguments.artifact, static_cast<int>(arguments.threads), arguments.inputs, arguments.outputs);
  report_loaded();

  unsigned left = arguments.samples + arguments.warmups + arguments.repeats;
  const auto infer = [&] { return --left ? timed(*artifact) : timed_and_marked(*artifact); };
  std::vector<double> seconds, repeats;
  std::vector<Shape> shapes(files.size());
  for (unsigned sample = 0; sample < arguments.samples; ++sample) {
    for (size_t index = 0; index < inputs.size(); ++index) artifact->set_input(index, inputs[index].next());
    seconds.push_back(infer());
    for (size_t index = 0; index < files.size(); ++index) {
      const Result result = artifact->output(index);
      files[index].append(result.values);
      shapes[index] = result.shape;
    }
  }
  for (Output& file : files) file.close();
  for (unsigned count = 0; count < arguments.warmups; ++count) infer();
  for (unsigned count = 0; count < arguments.repeats; ++count) repeats.push_back(infer());
  report_ran(seconds, repeats, shapes);
}

}  // namespace

std::string to_string(const Shape& shape) {
  std::string text;
  for (const int64_t size : shape) text += (text.empty() ? "" : "x") + std::to_string(size);
  return text;
}

size_t elements(const Shape& shape) {
  size_t count = 1;
  for (const int64_t size : shape) count *= static_cast<size_t>(size);
  return count;
}

void expect_shape(const Port& port, const Shape& actual) {
  if (actual != port.shape)
    throw std::runtime_error("input " + port.name + " is " + to_string(actual) + " in the artifact, " +
                             to_string(port.shape) + " was given");
}

void expect_counts(const std::vector<Port>& inputs, size_t actual_inputs, const std::vector<Port>& outputs,
                   size_t actual_outputs) {
  if (inputs.size() != actual_inputs || outputs.size() != actual_outputs)
    throw std::runtime_error("the artifact has " + std::to_string(actual_inputs) + " inputs and " +
                             std::to_string(actual_outputs) + " outputs, " + std::to_string(inputs.size()) + " and " +
                             std::to_string(outputs.size()) + " were given");
}

int main(int count, char** words) {
  events = dup(STDOUT_FILENO);
  dup2(STDERR_FILENO, STDOUT_FILENO);
  realpath(words[0], program);
  try {
    const Arguments arguments = parse({words + 1, words + count});
    handle_signals(arguments.limit_s);
    run(arguments);
    return kRan;
  } catch (const std::exception& error) {
    Line().raw("{\"event\":\"failed\",\"reason\":").quoted(error.what()).raw("}").end();
    return kFailed;
  }
}
