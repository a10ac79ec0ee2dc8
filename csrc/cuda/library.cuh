// Large products by cuBLASLt: which of a program's go that way, and what is done around them.
//
// The library makes the bare product. Ours are the rounding of factors to bfloat16 before it, and
// bias, activation and derivative behind it: its own ReLU makes 0 of NaN, which hides a loss that
// diverges. Each replica's product is a call of its own, by the algorithm that one network has, so
// that an ensemble has the bits of single networks.
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <limits>
#include <map>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "core/program.h"
#include "cuda/blas.h"
#include "cuda/choices.h"
#include "cuda/elementwise.cuh"
#include "cuda/execution.cuh"
#include "cuda/runtime.h"

namespace fastmlp::cuda {

// out = in in bfloat16, two to a word: out is counted in words, and its last may have one only.
struct Round { Operand out, in; };

FASTMLP_DEVICE void round_pairs(const Round& record, const Block& block) {
  const auto out = block.matrix<std::uint32_t>(record.out);
  const auto in = block.matrix<const float>(record.in);
  const std::int64_t cols = record.in.cols;
  block.each_cell(block.rows(record.in), record.out.cols, [&](std::int64_t i, std::int64_t j) {
    const float* const pair = in[i] + 2 * j;
    out[i][j] = to_bfloat16(pair[0], 2 * j + 1 < cols ? pair[1] : 0.0f);
  });
}
template <class T>
FASTMLP_DEVICE void execute(const Round& record, const Block& block) {
  round_pairs(record, block);
}

// The epilogue of a product whose sums lie in `out`; `rounded`, where it is wanted, is the result
// as Round would have it. A thread has the two elements of a word.
struct FinishProduct {
  MatMul product;
  Operand rounded;
};

template <class T>
FASTMLP_DEVICE void execute(const FinishProduct& record, const Block& block) {
  const MatMul& r = record.product;
  const auto out = block.matrix<T>(r.out), before = block.matrix<T>(r.before);
  const auto kept = block.matrix<const T>(r.kept);
  const T* const bias = block.data<const T>(r.bias);
  const auto rounded = block.matrix<std::uint32_t>(record.rounded);
  const std::int64_t cols = r.out.cols;
  block.each_cell(block.rows(r.out), (cols + 1) / 2, [&](std::int64_t i, std::int64_t word) {
    T first = T(0), second = T(0);
#pragma unroll 1  // or all formulas would be there twice
    for (std::int64_t j = 2 * word; j < 2 * word + 2 && j < cols; ++j) {
      const T value = bias ? out[i][j] + bias[j] : out[i][j];
      if (before) before[i][j] = value;
      first = second;
      second = kept ? value * slope(kept[i][j], r.activation) : activated(value, r.activation);
      out[i][j] = second;
    }
    if constexpr (std::is_same_v<T, float>) {
      const bool alone = 2 * word + 1 == cols;
      if (rounded) rounded[i][word] = to_bfloat16(alone ? second : first, alone ? 0.0f : second);
    }
  });
}

inline bool has_epilogue(const MatMul& r) {
  return r.bias || r.before || r.kept || !r.activation.is_identity();
}

// ---- on the host

// How one product of a program goes by the library. Factors rounded to bfloat16 are copies in
// Context::for_library, which it may have to make first, and its result may be a later product's.
struct Way {
  BlasProduct product;
  std::optional<Operand> a, b;
  bool round_a = false, round_b = false;
  Operand rounded_out;
};

enum class Library { never, always, measured };

// FASTMLP_CUDA_BLAS=never or always has all large products one way or the other; otherwise the
// faster one is found out.
inline Library wanted_library() {
  const char* const wanted = std::getenv("FASTMLP_CUDA_BLAS");
  const std::string word = wanted ? wanted : "";
  if (word.empty()) return Library::measured;
  if (word != "never" && word != "always")
    throw std::runtime_error("FASTMLP_CUDA_BLAS: needs always or never, got '" + word + "'");
  return word == "never" ? Library::never : Library::always;
}

// By a launcher of our own kernels, which has the context that they run in.
template <class Launcher>
bool multiply_by_library(const Launcher& own, const MatMul& r, const Way& way, void* workspace) {
  const Context& context = own.context;
  if (way.round_a) own.cells(Round{*way.a, r.a}, own.rows(r.a), way.a->cols);
  if (way.round_b) own.cells(Round{*way.b, r.b}, own.rows(r.b), way.b->cols);
  auto address = [&](const Operand& o, std::int64_t replica) {
    return static_cast<char*>(context.buffers[o.buffer]) +
           (o.offset + replica * o.batch_stride) * size_of(o.dtype);
  };
  // The library cannot see that a loss was not finite. What it makes then, nobody uses.
  for (std::int64_t i = 0; i < context.replicas; ++i)
    if (!way.product.run(address(r.out, i), address(way.a ? *way.a : r.a, i),
                         address(way.b ? *way.b : r.b, i), workspace, own.stream))
      return false;
  if (has_epilogue(r))
    own.cells(FinishProduct{r, way.rounded_out}, own.rows(r.out), (r.out.cols + 1) / 2);
  return true;
}

// Those of a whole program, by the number of the record, and the memory that they need: the copies,
// and behind them what the library works in.
struct Ways {
  std::map<std::size_t, Way> of;
  std::size_t copies = 0, workspace = 0;  // bytes

  std::size_t bytes() const { return copies + workspace; }

  // Enqueues a record, if it has a way here; by our own kernels after all, if the library fails.
  template <class Launcher>
  bool run(std::size_t number, const Record& record, const Launcher& own) const {
    const auto way = of.find(number);
    if (way == of.end()) return false;
    auto* const memory = static_cast<char*>(own.context.buffers[Context::for_library]);
    const auto& product = std::get<MatMul>(record);
    if (multiply_by_library(own, product, way->second, memory + copies)) return true;
    own(product);
    const Operand& rounded = way->second.rounded_out;
    if (rounded) own.cells(Round{rounded, product.out}, own.rows(product.out), rounded.cols);
    return true;
  }
};

// Finds the ways of a program's products, in the buffers of one context. What has no way by the
// library, be it too small, slower or refused, has none here.
template <class Launcher>
class Chooser {
 public:
  Chooser(const Program& program, const Context& context, Stream stream)
      : program_(program), context_(context), stream_(stream) {}

  // Null where there is no such product. It may run each of them some times where the results are
  // not used: measured, or just proved to work, so that no error, and no code that is loaded when
  // first used, meets a graph that is being captured.
  std::shared_ptr<const Ways> ways(Library wanted) {
    if (wanted == Library::never) return nullptr;
    const auto ways = std::make_shared<Ways>();
    for (std::size_t i = 0; i < program_.records.size(); ++i) {
      const auto* const product = std::get_if<MatMul>(&program_.records[i]);
      std::optional<BlasProduct> found;
      if (product && is_large(*product)) found = best(*product, wanted == Library::always);
      if (found) {
        Way way;
        way.product = std::move(*found);
        if (arithmetic() == Arithmetic::bfloat16) {
          way.a = copy_of(product->a, way.round_a, *ways);
          way.b = copy_of(product->b, way.round_b, *ways);
        }
        ways->workspace = std::max(ways->workspace, way.product.workspace);
        ways->of.emplace(i, std::move(way));
      }
      forget_what_changes(program_.records[i]);
      if (found && has_epilogue(*product)) finished_.push_back({product->out, i});
    }
    if (ways->of.empty()) return nullptr;
    ways->copies = std::size_t(whole_lines(words_ * std::int64_t(sizeof(std::uint32_t))));
    return ways;
  }

 private:
  static constexpr int widest = 16;  // bytes that a thread loads at once, at most

  static std::int64_t whole_lines(std::int64_t bytes) {
    constexpr std::int64_t line = 256;
    return (bytes + line - 1) / line * line;
  }

  // A factor in bfloat16. It serves all products until the numbers that it has are overwritten.
  struct RoundedCopy {
    Operand of, words;
    bool is_current;
  };
  // A result behind whose epilogue, that of record `number`, nothing has changed.
  struct Finished {
    Operand out;
    std::size_t number;
  };

  std::int64_t rows(const Operand& o) const {
    return o.rows == Operand::batch ? context_.rows : o.rows;
  }

  bool is_large(const MatMul& r) const {
    return ProductShape(r, context_.rows).operations() >= large_product;
  }

  Arithmetic arithmetic() const {
    if (program_.dtype == DType::float64) return Arithmetic::float64;
    if (context_.precision == Precision::tf32) return Arithmetic::tf32;
    return context_.precision == Precision::bfloat16 ? Arithmetic::bfloat16 : Arithmetic::float32;
  }

  // The copy's rows start at whole loads.
  Operand copied_to(const Operand& of, std::int64_t offset) const {
    const std::int64_t words = (of.cols + 1) / 2, stride = (words + 3) / 4 * 4;
    return {Context::for_library, offset, of.rows, words, stride, rows(of) * stride};
  }
  static bool same_matrix(const Operand& a, const Operand& b) {
    return same_place(a, b) && a.rows == b.rows && a.cols == b.cols &&
           a.row_stride == b.row_stride && a.batch_stride == b.batch_stride;
  }
  // The copy that a product takes, and whether it has to be made first.
  Operand copy_of(const Operand& of, bool& round, Ways& ways) {
    auto copy = std::find_if(copies_.begin(), copies_.end(),
                             [&](const RoundedCopy& each) { return same_matrix(each.of, of); });
    if (copy == copies_.end()) {
      copy = copies_.insert(copy, {of, copied_to(of, words_), false});
      words_ += context_.replicas * copy->words.batch_stride;
    }
    if (std::exchange(copy->is_current, true)) return copy->words;
    const auto made = std::find_if(finished_.begin(), finished_.end(),
                                   [&](const Finished& each) { return same_matrix(each.out, of); });
    round = made == finished_.end();
    if (!round) ways.of.at(made->number).rounded_out = copy->words;
    return copy->words;
  }
  void forget_what_changes(Record record) {
    if (copies_.empty() && finished_.empty()) return;
    auto end = [&](const Operand& o) {
      return o.offset + (context_.replicas - 1) * o.batch_stride + rows(o) * o.row_stride;
    };
    auto cross = [&](const Operand& a, const Operand& b) {
      return a.buffer == b.buffer && a.offset < end(b) && b.offset < end(a);
    };
    // Which operands a record writes is known of these; of others any might be.
    const int all = std::numeric_limits<int>::max();
    const int written = std::holds_alternative<MatMul>(record)      ? 2
                        : std::holds_alternative<ColumnSum>(record) ? 1
                                                                    : all;
    int number = 0;
    auto changes = [&](const Operand& o) {
      if (number++ >= written || !o) return;
      for (RoundedCopy& copy : copies_) copy.is_current &= !cross(copy.of, o);
      auto changed = [&](const Finished& each) { return cross(each.out, o); };
      finished_.erase(std::remove_if(finished_.begin(), finished_.end(), changed), finished_.end());
    };
    std::visit([&](auto& r) { r.each(changes); }, record);
  }

  // Bytes that the start of every row is a multiple of.
  int alignment(const Operand& o) const {
    const std::int64_t size = size_of(o.dtype), together = context_.replicas > 1 ? 1 : 0;
    const std::int64_t bits =
        std::int64_t(reinterpret_cast<std::uintptr_t>(context_.buffers[o.buffer])) |
        o.offset * size | o.row_stride * size | together * o.batch_stride * size | widest;
    return int(bits & -bits);
  }

  Gemm gemm(const MatMul& r) const {
    const ProductShape shape(r, context_.rows);
    Gemm gemm{arithmetic(), r.transpose_a,  r.transpose_b,  shape.m,          shape.n,
              shape.k,      r.a.row_stride, r.b.row_stride, r.out.row_stride, alignment(r.out)};
    if (gemm.arithmetic == Arithmetic::bfloat16) {
      gemm.lda = 2 * copied_to(r.a, 0).row_stride;
      gemm.ldb = 2 * copied_to(r.b, 0).row_stride;
    } else {
      gemm.alignment = std::min({gemm.alignment, alignment(r.a), alignment(r.b)});
    }
    return gemm;
  }

  std::optional<BlasProduct> best(const MatMul& record, bool always) {
    const Gemm shape = gemm(record);
    std::vector<BlasProduct> found = blas_products(shape);
    if (found.empty()) return std::nullopt;
    const std::string name = blas_name(shape) + (always ? ", always" : "");
    auto way = choices().settled(name);
    if (!way) {
      try {
        way = settle(record, found, name, always);
      } catch (const std::runtime_error&) {  // no memory to try it in
        way = own_kernels;
      }
      choices().settle(name, *way);
    }
    if (*way < 0 || std::size_t(*way) >= found.size()) return std::nullopt;
    return found[std::size_t(*way)];
  }

  int settle(const MatMul& record, const std::vector<BlasProduct>& found, const std::string& name,
             bool always) {
    Trial trial(*this, record, found);
    auto kept = always ? std::nullopt : choices().find(name);
    if (!kept && !always && choices().can_be_kept()) kept = choices().keep(name, trial.fastest());
    const int way = kept.value_or(0);
    return trial.works(way) ? way : own_kernels;
  }

  // One replica's product with results in memory of its own, whatever the loss was.
  struct Trial {
    Trial(const Chooser& chooser, const MatMul& product, const std::vector<BlasProduct>& found)
        : found(found), record(product), context(chooser.context_), stream(chooser.stream_) {
      const std::int64_t size = size_of(record.out.dtype);
      std::int64_t bytes = 0;
      auto take = [&](std::int64_t wanted) {
        return std::exchange(bytes, bytes + whole_lines(wanted));
      };
      auto results = [&](Operand& o) {
        if (!o) return;
        o.offset = take(chooser.rows(o) * o.row_stride * size) / size;
        o.buffer = Context::for_library;
      };
      results(record.out);
      results(record.before);
      if (chooser.arithmetic() == Arithmetic::bfloat16) {
        auto copy = [&](const Operand& of) {
          const std::int64_t words = chooser.copied_to(of, 0).batch_stride;
          return chooser.copied_to(of, take(words * 4) / 4);
        };
        way.a = copy(record.a), way.b = copy(record.b);
        way.round_a = way.round_b = true;
      }
      std::size_t most = 0;
      for (const BlasProduct& each : found) most = std::max(most, each.workspace);
      memory.emplace(std::size_t(bytes) + most);
      context.buffers[Context::for_library] = memory->data();
      context.replicas = 1;
      context.may_stop = false;
      workspace = static_cast<char*>(memory->data()) + bytes;
    }

    bool works(int number) {
      if (number < 0 || std::size_t(number) >= found.size()) return false;
      way.product = found[std::size_t(number)];
      return multiply_by_library(Launcher{context, stream}, record, way, workspace);
    }

    int fastest() {
      const Launcher own{context, stream};
      float least = seconds_of(stream, [&] { own(record); });
      int best = own_kernels;
      for (int i = 0; i < int(found.size()); ++i) {
        if (!works(i)) continue;
        const float seconds = seconds_of(stream, [&] { works(i); });
        if (seconds < least) least = seconds, best = i;
      }
      return best;
    }

    const std::vector<BlasProduct>& found;
    MatMul record;
    Context context;
    Stream stream;
    Way way;
    std::optional<Scratch> memory;
    void* workspace = nullptr;
  };

  const Program& program_;
  const Context& context_;
  const Stream stream_;
  std::vector<RoundedCopy> copies_;
  std::vector<Finished> finished_;
  std::int64_t words_ = 0;
};

}  // namespace fastmlp::cuda
