#include "cuda/backend.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "cuda/elementwise.cuh"
#include "cuda/execution.cuh"
#include "cuda/library.cuh"
#include "cuda/loss.cuh"
#include "cuda/matmul.cuh"
#include "cuda/normalise.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tensor_cores.cuh"

namespace fastmlp::cuda {
namespace {

static_assert(std::is_trivially_copyable_v<Record>);

// Once a loss is not finite, of whichever replica, nothing more is done: neither what is left of
// the step nor the steps behind it.
FASTMLP_DEVICE bool stopped(const Context& context) {
  if (!context.may_stop) return false;
  const auto* states = static_cast<const StepState*>(context.buffers[step_state]);
  bool any = false;
  for (std::int64_t r = 0; r < context.replicas; ++r) any |= states[r].not_finite != 0;
  return any;
}

template <class T, class R>
__global__ void __launch_bounds__(threads, 1)
    run_record(FASTMLP_PARAMETER R record, FASTMLP_PARAMETER Context context) {
  if (stopped(context)) return;
  for (std::int64_t r = blockIdx.y; r < context.replicas; r += gridDim.y)
    execute<T>(record, Block{context, r, blockIdx.x, gridDim.x});
}

// How a product is computed: float or double, or on tensor cores Tf32 or Bfloat16.
template <class Kind>
constexpr bool on_tensor_cores = !std::is_floating_point_v<Kind>;

template <class Kind, int size>
__global__ void __launch_bounds__(threads, 1)
    run_product(FASTMLP_PARAMETER MatMul record, FASTMLP_PARAMETER Context context) {
  if (stopped(context)) return;
  for (std::int64_t r = blockIdx.y; r < context.replicas; r += gridDim.y) {
    const Block block{context, r, blockIdx.x, gridDim.x};
    if constexpr (on_tensor_cores<Kind>)
      multiply_on_tensor_cores<Kind, size>(record, block);
    else
      multiply<Kind, size>(record, block);
  }
}

template <class Kind>
FASTMLP_DEVICE void execute_on_tensor_cores(const MatMul& record, const Block& block) {
  if (block.rows(record.out) > 32 && record.out.cols > 32)
    multiply_on_tensor_cores<Kind, 64>(record, block);
  else
    multiply_on_tensor_cores<Kind, 32>(record, block);
}

template <class T>
FASTMLP_DEVICE void execute(const MatMul& record, const Block& block) {
  if constexpr (std::is_same_v<T, float>) {
    const Precision precision = block.context.precision;
    if (precision == Precision::tf32) return execute_on_tensor_cores<Tf32>(record, block);
    if (precision == Precision::bfloat16) return execute_on_tensor_cores<Bfloat16>(record, block);
  }
  const std::int64_t m = block.rows(record.out), n = record.out.cols;
  if (m > 32 && n > 32)
    multiply<T, 64>(record, block);
  else if (m > 16 && n > 16)
    multiply<T, 32>(record, block);
  else
    multiply<T, 16>(record, block);
}

// Calls the function of the record that it is: std::visit for the device.
template <class T, class... Records>
FASTMLP_DEVICE void execute_any(const std::variant<Records...>& record, const Block& block) {
  auto as = [&](const auto* one) {
    if (one) execute<T>(*one, block);
  };
  (as(std::get_if<Records>(&record)), ...);
}

// Whole steps of a small network in one block of threads: no launch between records, and what one
// leaves for the next stays in the caches of one multiprocessor.
template <class T>
__global__ void __launch_bounds__(threads, 1)
    run_steps(const Record* records, int count, std::int64_t steps,
              FASTMLP_PARAMETER Context context) {
  const Block block{context, 0, 0, 1};
  for (std::int64_t step = 0; step < steps; ++step) {
    for (int i = 0; i < count; ++i) {
      if (stopped(context)) return;
      execute_any<T>(records[i], block);
      __syncthreads();
      if (const auto* clip = std::get_if<ClipNorm>(&records[i])) {
        execute<T>(FinishClipNorm{*clip}, block);
        __syncthreads();
      } else if (const auto* penalize = std::get_if<Penalize>(&records[i])) {
        if (penalize->partial.buffer >= 0) execute<T>(FinishPenalize{*penalize}, block);
        __syncthreads();
      }
    }
  }
}

// Whether a record works on the step's state, which none of its operands names.
constexpr auto uses_state = [](const auto& record) {
  using R = std::decay_t<decltype(record)>;
  constexpr bool any = std::is_same_v<R, Gather> || std::is_same_v<R, Dropout> ||
                       std::is_same_v<R, Accumulate> || std::is_same_v<R, BeginForward> ||
                       std::is_same_v<R, BeginUpdate> || std::is_same_v<R, ClipNorm> ||
                       std::is_same_v<R, ApplyUpdate> || std::is_same_v<R, EndStep> ||
                       std::is_same_v<R, Penalize>;
  return any;
};

// Some blocks for each multiprocessor of any GPU there is; more would only wait.
constexpr std::int64_t most_blocks = 2048;

std::int64_t divided(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

dim3 grid(std::int64_t blocks, std::int64_t replicas) {
  constexpr std::int64_t most_replicas = 65535;
  return dim3(unsigned(std::clamp<std::int64_t>(blocks, 1, most_blocks)),
              unsigned(std::min(replicas, most_replicas)));
}

// A sum over many rows that has few elements, as a kernel's gradient has, would keep few
// multiprocessors busy: it is made in parts of so many rows, side by side, and then over the parts.
// That depends on the shape alone, and up to `most_rows` it is the CPU's one chain.
constexpr std::int64_t part_rows = 1024, most_rows = 4 * part_rows;
constexpr std::int64_t few_elements = 128 * 64 * 64;  // a larger result has tiles for all

// The parts that a record is made in; 0 where it is made as a whole.
std::int64_t parts_of(const Operand& out, std::int64_t summed) {
  const bool few = out.rows != Operand::batch && out.rows * out.cols <= few_elements;
  return few && summed > most_rows ? divided(summed, part_rows) : 0;
}
std::int64_t parts(const MatMul& r, std::int64_t batch) {
  const bool plain = r.transpose_a && !r.transpose_b && !r.bias && !r.before && !r.kept &&
                     r.activation.is_identity();
  return plain ? parts_of(r.out, ProductShape(r, batch).k) : 0;
}
std::int64_t parts(const ColumnSum& r, std::int64_t batch) {
  return parts_of(r.out, r.in.rows == Operand::batch ? batch : r.in.rows);
}

// Enqueues a record's kernels on a stream.
template <class T>
struct Launcher {
  const Context& context;
  Stream stream;

  std::int64_t rows(const Operand& operand) const {
    return operand.rows == Operand::batch ? context.rows : operand.rows;
  }
  template <class R>
  void run(const R& record, std::int64_t blocks) const {
    launch(run_record<T, R>, grid(blocks, context.replicas), stream, record, context);
  }
  template <class R>
  void all_rows(const R& record, std::int64_t count) const {
    if (count > 0) run(record, divided(count, threads / warp));
  }
  template <class R>
  void cells(const R& record, std::int64_t rows, std::int64_t cols) const {  // as Block::each_cell
    if (rows == 1)
      run(record, divided(cols, threads));
    else
      all_rows(record, rows);
  }

  template <class R>
  void columns(const R& record, std::int64_t count) const {  // a thread to each
    run(record, divided(count, threads));
  }

  void operator()(const Gather& r) const { all_rows(r, context.rows); }
  void operator()(const Copy& r) const { cells(r, rows(r.out), r.out.cols); }
  void operator()(const BiasAdd& r) const { cells(r, rows(r.in), r.in.cols); }
  void operator()(const ActivationForward& r) const { cells(r, rows(r.in), r.in.cols); }
  void operator()(const ActivationBackward& r) const {
    cells(r, rows(r.gradient), r.gradient.cols);
  }
  void operator()(const ApplyUpdate& r) const { cells(r, r.parameter.rows, r.parameter.cols); }
  void operator()(const ColumnSum& r) const {
    if (parts(r, context.rows))
      in_parts(r, rows(r.in), [](ColumnSum& part, auto&& f) { f(part.in); });
    else
      columns(r, r.in.cols);
  }
  void operator()(const Dropout& r) const { all_rows(r, rows(r.in)); }
  void operator()(const Softmax& r) const { all_rows(r, rows(r.in)); }
  void operator()(const SoftmaxBackward& r) const { all_rows(r, rows(r.gradient)); }
  void operator()(const Prelu& r) const { cells(r, rows(r.in), r.in.cols); }
  void operator()(const PreluBackward& r) const { cells(r, rows(r.in), r.in.cols); }
  void operator()(const PreluSlope& r) const { columns(r, r.out.cols); }
  void operator()(const Maxout& r) const { cells(r, rows(r.out), r.out.cols); }
  void operator()(const MaxoutBackward& r) const { cells(r, rows(r.y), r.y.cols); }
  void operator()(const Statistics& r) const {
    if (r.by_row)
      all_rows(r, rows(r.in));
    else
      columns(r, r.in.cols);
  }
  void operator()(const Normalise& r) const { cells(r, rows(r.in), r.in.cols); }
  void operator()(const NormaliseSums& r) const { columns(r, r.in.cols); }
  void operator()(const NormaliseBackward& r) const {
    if (r.by_row)
      all_rows(r, rows(r.in));
    else
      cells(r, rows(r.in), r.in.cols);
  }
  void operator()(const MoveStatistics& r) const { columns(r, r.mean.cols); }
  void operator()(const Loss& r) const { all_rows(r, rows(r.prediction)); }
  void operator()(const Metric& r) const { all_rows(r, rows(r.prediction)); }
  void operator()(const Accumulate& r) const { run(r, 1); }
  void operator()(const BeginForward& r) const { run(r, 1); }
  void operator()(const BeginUpdate& r) const { run(r, 1); }
  void operator()(const EndStep& r) const { run(r, 1); }
  void operator()(const ClipNorm& r) const {
    run(r, r.partial.cols);
    run(FinishClipNorm{r}, 1);
  }
  void operator()(const Penalize& r) const {
    run(r, divided(r.weights.cols, norm_block));
    if (r.partial) run(FinishPenalize{r}, 1);
  }

  void operator()(const MatMul& r) const {
    if (parts(r, context.rows))
      return in_parts(r, rows(r.a), [](MatMul& part, auto&& f) { f(part.a), f(part.b); });
    if constexpr (std::is_same_v<T, float>) {
      if (context.precision == Precision::tf32) return product<Tf32>(r);
      if (context.precision == Precision::bfloat16) return product<Bfloat16>(r);
    }
    product<T>(r);
  }

 private:
  // A record as many of fewer rows, which look like replicas, and the sum of what they give.
  // inputs(part, f) calls f for the operands that have the rows. They do not look whether a loss is
  // not finite, since a gradient that nobody uses does no harm.
  template <class R, class Inputs>
  void in_parts(const R& record, std::int64_t summed, Inputs&& inputs) const {
    const std::int64_t whole = summed / part_rows, rest = summed % part_rows;
    const std::int64_t size = record.out.rows * record.out.cols;
    Context own = context;
    own.may_stop = false;
    const Launcher launcher{own, stream};
    for (std::int64_t r = 0; r < context.replicas; ++r) {
      auto enqueue = [&](std::int64_t first, std::int64_t count, std::int64_t rows) {
        R part = record;
        part.out = {Context::scratch, first * size, record.out.rows, record.out.cols,
                    record.out.cols,  size,         record.out.dtype};
        inputs(part, [&](Operand& in) {
          in.offset += r * in.batch_stride + first * part_rows * in.row_stride;
          in.batch_stride = part_rows * in.row_stride;
          in.rows = rows;
        });
        own.replicas = count;
        launcher(part);
      };
      enqueue(0, whole, part_rows);
      if (rest) enqueue(whole, 1, rest);
      own.replicas = 1;
      FoldParts fold{record.out, whole + (rest > 0)};
      fold.out.offset += r * record.out.batch_stride;
      launcher.cells(fold, fold.out.rows, fold.out.cols);
    }
  }

  // The largest tile of which there are enough for all multiprocessors: large ones read less,
  // small ones are many.
  template <class Kind>
  void product(const MatMul& r) const {
    const std::int64_t m = rows(r.out), n = r.out.cols;
    if (m == 0 || n == 0) return;
    constexpr std::int64_t enough = 128;
    auto tiles = [&](std::int64_t size) { return divided(m, size) * divided(n, size); };
    auto multiply = [&](auto size) {
      launch(run_product<Kind, size>, grid(tiles(size), context.replicas), stream, r, context);
    };
    auto suits = [&](std::int64_t size) { return tiles(size) * context.replicas >= enough; };
    if constexpr (sizeof(T) == 4)  // of doubles it would fill all registers
      if (suits(128)) return multiply(std::integral_constant<int, 128>{});
    if (suits(64)) return multiply(std::integral_constant<int, 64>{});
    if constexpr (!on_tensor_cores<Kind>)
      if (!suits(32)) return multiply(std::integral_constant<int, 16>{});
    multiply(std::integral_constant<int, 32>{});
  }
};

template <class T>
class CudaExecutable : public Executable {
 public:
  explicit CudaExecutable(Program program) : program_(std::move(program)) {
    for (Record record : program_.records) {
      std::visit([&](auto& r) { r.each([&](const Operand& o) { needs(o.buffer); }); }, record);
      if (std::visit(uses_state, record)) needs(buffer_count - 1);
      if (const auto* sum = std::get_if<Accumulate>(&record)) may_stop_ |= sum->check;
      if (const auto* penalize = std::get_if<Penalize>(&record))
        may_stop_ |= bool(penalize->partial);
    }
  }

  const Program& program() const override { return program_; }

  void run(const Launch& launch) override {
    if (launch.profile) throw std::runtime_error("profile: the CUDA backend has none; use nsys");
    Context context{};
    for (int i = 0; i < buffers_; ++i) context.buffers[i] = launch.buffers[i];
    context.rows = launch.rows;
    context.total_rows = launch.total_rows;
    context.replicas = program_.replicas;
    context.precision = program_.precision;
    context.may_stop = may_stop_;
    context.buffers[Context::scratch] = scratch(context.rows);
    const auto stream = static_cast<Stream>(launch.stream);
    if (in_one_kernel(context)) {
      cuda::launch(run_steps<T>, dim3(1), stream, records_on_device(), int(program_.records.size()),
                   launch.repeat, context);
      return;
    }
    const std::shared_ptr<const Ways> ways = ways_by_library(context, stream);
    if (ways) context.buffers[Context::for_library] = grown(for_library_, ways->bytes());
    std::int64_t left = launch.repeat;
    if (left >= captured_steps) {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!graph_ || !same(context, captured_) || ways != captured_ways_) {
        graph_.capture([this, context, ways](Stream s) {
          for (int i = 0; i < captured_steps; ++i) enqueue(context, ways.get(), s);
        });
        captured_ = context;
        captured_ways_ = ways;
      }
      for (; left >= captured_steps; left -= captured_steps) graph_.replay(stream);
    }
    for (; left > 0; --left) enqueue(context, ways.get(), stream);
  }

 private:
  // Many enough for the launch of a graph to vanish among them, few enough to be captured fast.
  static constexpr int captured_steps = 32;

  // A program of fm.kernels has as many buffers as its operands say; one that works on the state,
  // all that a network has.
  void needs(int buffer) {
    if (buffer >= Context::for_library) throw std::length_error("CUDA: too many buffers");
    buffers_ = std::max(buffers_, buffer + 1);
  }

  // FASTMLP_CUDA_STEP=kernel or launches has it one way or the other, for checks and comparison.
  // Replicas have a launch for each record, between which one that must stop stops all of them; and
  // what is made in parts, parts side by side.
  bool in_one_kernel(const Context& context) const {
    if (context.replicas > 1 || program_.records.size() < 2) return false;
    if (context.buffers[Context::scratch]) return false;
    const char* const wanted = std::getenv("FASTMLP_CUDA_STEP");
    if (!wanted || !*wanted) return fits_one_block(context);
    if (std::strcmp(wanted, "kernel") != 0 && std::strcmp(wanted, "launches") != 0)
      throw std::runtime_error("FASTMLP_CUDA_STEP: needs kernel or launches, got '" +
                               std::string(wanted) + "'");
    return std::strcmp(wanted, "kernel") == 0;
  }

  // Whether a step takes one multiprocessor less time than all of them with a launch for each
  // record. The rates are estimates of an H100's in float32, in seconds and operations a second.
  bool fits_one_block(const Context& context) const {
    constexpr double launch = 2e-6, barrier = 1e-6, one = 1e11, all = 1e13;
    double operations = 0;
    for (const Record& record : program_.records)
      if (const auto* product = std::get_if<MatMul>(&record))
        operations += ProductShape(*product, context.rows).operations();
    const double records = double(program_.records.size());
    return records * barrier + operations / one < records * launch + operations / all;
  }

  // Memory for the parts of the record that has most of them; null where no record has any.
  void* scratch(std::int64_t rows) {
    std::int64_t elements = 0;
    for (const Record& record : program_.records)
      std::visit(
          [&](const auto& r) {
            using R = std::decay_t<decltype(r)>;
            if constexpr (std::is_same_v<R, MatMul> || std::is_same_v<R, ColumnSum>)
              elements = std::max(elements, parts(r, rows) * r.out.rows * r.out.cols);
          },
          record);
    return grown(scratch_, std::size_t(elements) * sizeof(T));
  }
  void* grown(std::optional<Scratch>& memory, std::size_t bytes) {
    if (bytes == 0) return nullptr;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!memory || memory->bytes() < bytes) memory.emplace(bytes);
    return memory->data();
  }

  // Copied when first needed: a program of fm.kernels lives for one call.
  const Record* records_on_device() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!records_)
      records_.emplace(program_.records.data(), program_.records.size() * sizeof(Record));
    return static_cast<const Record*>(records_->data());
  }

  static bool same(const Context& a, const Context& b) {
    return std::equal(std::begin(a.buffers), std::end(a.buffers), std::begin(b.buffers)) &&
           a.rows == b.rows && a.total_rows == b.total_rows;
  }

  // What goes by the library in these buffers, found out when they change.
  std::shared_ptr<const Ways> ways_by_library(const Context& context, Stream stream) {
    const Library wanted = wanted_library();
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!chosen_ || !same(context, chosen_->context) || wanted != chosen_->wanted) {
      const auto ways = Chooser<Launcher<T>>(program_, context, stream).ways(wanted);
      chosen_.emplace(Chosen{context, wanted, ways});
    }
    return chosen_->ways;
  }

  void enqueue(const Context& context, const Ways* ways, Stream stream) const {
    const Launcher<T> launcher{context, stream};
    for (std::size_t i = 0; i < program_.records.size(); ++i) {
      const Record& record = program_.records[i];
      if (!ways || !ways->run(i, record, launcher)) std::visit(launcher, record);
    }
  }

  const Program program_;
  int buffers_ = 0;
  bool may_stop_ = false;
  std::mutex mutex_;  // for what follows
  std::optional<DeviceCopy> records_;
  std::optional<Scratch> scratch_, for_library_;
  struct Chosen {
    Context context;
    Library wanted;
    std::shared_ptr<const Ways> ways;
  };
  std::optional<Chosen> chosen_;
  Graph graph_;
  Context captured_{};
  std::shared_ptr<const Ways> captured_ways_;
};

class CudaBackend : public Backend {
 public:
  Device device() const override { return Device::cuda; }

  // Whole transactions of memory: rows that start at a multiple of 32 bytes.
  std::int64_t leading_dimension(std::int64_t cols, DType dtype) const override {
    const std::int64_t lane = 32 / size_of(dtype);
    return divided(cols, lane) * lane;
  }

  std::vector<Precision> precisions() const override {
    return {Precision::tf32, Precision::bfloat16};
  }

  std::unique_ptr<Executable> compile(Program program) override {
    if (program.dtype == DType::float64)
      return std::make_unique<CudaExecutable<double>>(std::move(program));
    return std::make_unique<CudaExecutable<float>>(std::move(program));
  }

  void read(void* host, const void* device, std::size_t bytes, void* stream) override {
    cuda::read(host, device, bytes, static_cast<Stream>(stream));
  }
};

}  // namespace

Backend& backend() {
  static CudaBackend instance;
  return instance;
}

}  // namespace fastmlp::cuda
