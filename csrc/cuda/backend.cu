#include "cuda/backend.h"

#include <algorithm>
#include <cstdlib>
#include <memory>
#include <mutex>
#include <optional>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <utility>
#include <variant>
#include <vector>

#include "core/effects.h"
#include "cuda/elementwise.cuh"
#include "cuda/execution.cuh"
#include "cuda/library.cuh"
#include "cuda/loss.cuh"
#include "cuda/matmul.cuh"
#include "cuda/networks.cuh"
#include "cuda/normalise.cuh"
#include "cuda/reduce.cuh"
#include "cuda/tensor_cores.cuh"

namespace fastmlp::cuda {
namespace {

static_assert(std::is_trivially_copyable_v<Record>);

// Once a loss is not finite, of whichever replica, nothing more is done: neither what is left of
// the step nor the steps behind it.
FASTMLP_DEVICE bool stopped(const Context& context) { return context.may_stop && *context.stopped; }

// Finds out whether any network has stopped, in one block.
__global__ void __launch_bounds__(threads, 1) look_for_stopped(FASTMLP_PARAMETER Context context) {
  const auto* states = static_cast<const StepState*>(context.buffers[step_state]);
  double count = 0;
  for (std::int64_t r = threadIdx.x; r < context.replicas; r += threads)
    count += states[r].not_finite != 0;
  count = block_sum(count);
  if (threadIdx.x == 0) *context.stopped = count != 0;
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

// Runs so many records of steps, of which each has `count`, for one replica; fewer where its loss
// stops it. Returns how many. Nothing is launched between them, and what one leaves for the next
// stays in the caches of one multiprocessor.
template <class T>
FASTMLP_DEVICE std::int64_t run_records(const Record* records, int count, std::int64_t most,
                                        const Block& block) {
  std::int64_t done = 0;
  for (int i = 0; done < most; ++done, i = i + 1 < count ? i + 1 : 0) {
    if (block.context.may_stop && block.state().not_finite) break;
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
  return done;
}

// Whole steps of small networks, a block to each. Of a trial the networks are put back and run
// `again` where they have not come equally far.
template <class T>
__global__ void __launch_bounds__(threads, 1)
    run_steps(const Record* records, int count, std::int64_t steps,
              FASTMLP_PARAMETER Context context, FASTMLP_PARAMETER Parts parts, Trial trial,
              bool again) {
  FASTMLP_SHARED(Context, own, 1);
  FASTMLP_DYNAMIC_SHARED(shared);
  const Block outside{context, blockIdx.x, 0, 1};
  std::int64_t most = steps * count;
  if (again) {
    const std::int64_t together = trial.together(context.replicas);
    if (together == most) return;
    most = together;
  }
  if (trial)
    trial.each(parts, outside, [&](void* network, void* kept, std::int64_t bytes) {
      copy(outside, again ? network : kept, again ? kept : network, bytes);
    });
  move_in(*own, shared, parts, outside);
  const Block block{*own, parts.count ? 0 : outside.replica, 0, 1};
  const std::int64_t done = run_records<T>(records, count, most, block);
  move_out(shared, parts, outside);
  if (trial && !again) outside.once([&] { trial.ran[outside.replica] = done; });
}

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
  void operator()(const Accumulate& r) const {
    run(r, 1);
    if (r.check) look();
  }
  void operator()(const BeginForward& r) const { run(r, 1); }
  void operator()(const BeginUpdate& r) const { run(r, 1); }
  void operator()(const EndStep& r) const { run(r, 1); }
  void operator()(const ClipNorm& r) const {
    run(r, r.partial.cols);
    run(FinishClipNorm{r}, 1);
  }
  void operator()(const Penalize& r) const {
    run(r, divided(r.weights.cols, norm_block));
    if (!r.partial) return;
    run(FinishPenalize{r}, 1);
    look();
  }

  // Whether all go on: see Context::stopped.
  void look() const {
    if (context.may_stop && context.replicas > 1)
      launch(look_for_stopped, dim3(1), stream, context);
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
    parts_ = own_parts(program_);
    for (Record record : program_.records) {
      std::visit([&](auto& r) { r.each([&](const Operand& o) { needs(o.buffer); }); }, record);
      if (effects_of(record).on_state()) needs(buffer_count - 1);
      if (const auto* sum = std::get_if<Accumulate>(&record)) may_stop_ |= sum->check;
      if (const auto* penalize = std::get_if<Penalize>(&record))
        may_stop_ |= bool(penalize->partial);
    }
  }

  const Program& program() const override { return program_; }

  void run(const Launch& launch) override {
    Context context{};
    for (int i = 0; i < buffers_; ++i) context.buffers[i] = launch.buffers[i];
    context.rows = launch.rows;
    context.total_rows = launch.total_rows;
    context.replicas = program_.replicas;
    context.precision = program_.precision;
    context.may_stop = may_stop_;
    context.stopped = stopped(context);
    context.buffers[Context::scratch] = scratch(context.rows);
    const auto stream = static_cast<Stream>(launch.stream);
    if (!launch.profile && in_one_kernel(context))
      return run_in_blocks(context, launch.repeat, stream);
    Launcher<T>{context, stream}.look();
    const std::shared_ptr<const Ways> ways = ways_by_library(context, stream);
    if (ways) context.buffers[Context::for_library] = grown(for_library_, ways->bytes());
    if (launch.profile) return run_watched(launch, context, ways.get());
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

  // What is made in parts has a launch for each record, for parts side by side; what may stop
  // others but is no whole step cannot be put back.
  bool in_one_kernel(const Context& context) const {
    if (program_.records.size() < 2 || context.buffers[Context::scratch]) return false;
    if (stop_each_other() && !parts_.count) return false;
    const std::string wanted = wanted_way();
    return wanted.empty() ? fits_one_block(context) : wanted != "launches";
  }

  // FASTMLP_CUDA_STEP=kernel or launches has it one way or the other, for checks and comparison;
  // kernel-global is the kernel without its networks in shared memory.
  static std::string wanted_way() {
    const char* const variable = std::getenv("FASTMLP_CUDA_STEP");
    const std::string wanted = variable ? variable : "";
    for (const char* way : {"", "kernel", "kernel-global", "launches"})
      if (wanted == way) return wanted;
    throw std::runtime_error("FASTMLP_CUDA_STEP: needs kernel, kernel-global or launches, got '" +
                             wanted + "'");
  }

  // Whether one multiprocessor takes less time for a network's step, of as many networks as it
  // gets, than all of them with a launch for each record. The rates are estimates of an H100's in
  // float32, in seconds and operations a second.
  bool fits_one_block(const Context& context) const {
    constexpr double launch = 2e-6, barrier = 1e-6, one = 1e11, all = 1e13;
    double operations = 0;
    for (const Record& record : program_.records)
      if (const auto* product = std::get_if<MatMul>(&record))
        operations += ProductShape(*product, context.rows).operations();
    const double records = double(program_.records.size()), networks = double(context.replicas);
    const double turns = double(divided(context.replicas, multiprocessors()));
    return turns * (records * barrier + operations / one) <
           records * launch + networks * operations / all;
  }

  std::int64_t* stopped(const Context& context) {
    if (!may_stop_) return nullptr;
    if (context.replicas == 1)
      return &static_cast<StepState*>(context.buffers[step_state])->not_finite;
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!stopped_) stopped_.emplace(sizeof(std::int64_t));
    return static_cast<std::int64_t*>(stopped_->data());
  }

  bool stop_each_other() const { return may_stop_ && program_.replicas > 1; }

  void run_in_blocks(const Context& context, std::int64_t steps, Stream stream) {
    const Trial trial = stop_each_other() ? place_of_trial() : Trial{};
    Parts parts = parts_;
    const bool in_shared = parts.count && wanted_way() != "kernel-global";
    const std::int64_t shared = in_shared ? place_in_shared(parts, room_in_shared()) : 0;
    auto go = [&](bool again) {
      launch_with_shared(shared, run_steps<T>, dim3(unsigned(context.replicas)), stream,
                         records_on_device(), int(program_.records.size()), steps, context, parts,
                         trial, again);
    };
    go(false);
    if (trial) go(true);
  }

  // Asked for when first needed, as CUDA takes its time to answer.
  std::int64_t room_in_shared() {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (room_ < 0) room_ = most_dynamic_shared(run_steps<T>);
    return room_;
  }

  Trial place_of_trial() {
    const std::size_t each = std::size_t(Trial::bytes(parts_)), n = std::size_t(program_.replicas);
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!kept_) kept_.emplace(n * (each + sizeof(std::int64_t)));
    char* const data = static_cast<char*>(kept_->data());
    return {data, reinterpret_cast<std::int64_t*>(data + n * each)};
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
    enqueue(context, ways, stream, [] {});
  }
  // after() is called behind each record.
  template <class F>
  void enqueue(const Context& context, const Ways* ways, Stream stream, F&& after) const {
    const Launcher<T> launcher{context, stream};
    for (std::size_t i = 0; i < program_.records.size(); ++i) {
      const Record& record = program_.records[i];
      if (!ways || !ways->run(i, record, launcher)) std::visit(launcher, record);
      after();
    }
  }

  // A launch for each record, even where whole steps are one kernel, with a clock read behind it. A
  // record that takes less than its launch shows the launch.
  void run_watched(const Launch& launch, const Context& context, const Ways* ways) const {
    const auto stream = static_cast<Stream>(launch.stream);
    Moments moments(stream);
    moments.mark();
    for (std::int64_t i = 0; i < launch.repeat; ++i)
      enqueue(context, ways, stream, [&] { moments.mark(); });
    launch.profile->members = 1;
    launch.profile->working = moments.seconds();
    launch.profile->waiting.assign(launch.profile->working.size(), 0);
  }

  const Program program_;
  int buffers_ = 0;
  bool may_stop_ = false;
  Parts parts_;
  std::mutex mutex_;  // for what follows
  std::optional<DeviceCopy> records_;
  std::int64_t room_ = -1;
  std::optional<Scratch> scratch_, for_library_, stopped_, kept_;
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
