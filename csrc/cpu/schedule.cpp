#include "cpu/schedule.h"

#include <algorithm>
#include <variant>

#include "cpu/features.h"
#include "cpu/matmul.h"

namespace fastmlp::cpu {
namespace {

// Parts of StepState that different records write.
enum StatePart : unsigned { place = 1, pass = 2, sums = 4, derived = 8 };

// How records.cpp executes a record: how many of its operands it writes (the first of `each`),
// whether its rows are shared out, and which parts of the state it reads and writes.
struct Traits {
  int outputs;
  bool by_rows;
  unsigned reads = 0, writes = 0;
};

struct Context {
  const Program& program;
  std::int64_t rows;
  int members;

  Traits operator()(const Gather&) const { return {3, true, place}; }
  Traits operator()(const Copy&) const { return {1, true}; }
  Traits operator()(const MatMul& m) const {
    return {2, shared_by_rows(m, rows, program.replicas, members)};
  }
  Traits operator()(const ColumnSum&) const { return {1, false}; }
  Traits operator()(const BiasAdd&) const { return {1, true}; }
  Traits operator()(const ActivationForward&) const { return {1, true}; }
  Traits operator()(const ActivationBackward&) const { return {1, true}; }
  Traits operator()(const Softmax&) const { return {1, true}; }
  Traits operator()(const SoftmaxBackward&) const { return {1, true}; }
  Traits operator()(const Prelu&) const { return {1, true}; }
  Traits operator()(const PreluBackward&) const { return {1, true}; }
  Traits operator()(const PreluSlope&) const { return {1, false}; }
  Traits operator()(const Maxout&) const { return {1, true}; }
  Traits operator()(const MaxoutBackward&) const { return {1, true}; }
  Traits operator()(const Statistics& s) const { return {2, s.by_row}; }
  Traits operator()(const Normalise&) const { return {1, true}; }
  Traits operator()(const NormaliseSums&) const { return {2, false}; }
  Traits operator()(const NormaliseBackward&) const { return {1, true}; }
  Traits operator()(const MoveStatistics&) const { return {2, false}; }
  Traits operator()(const Dropout&) const { return {1, true, pass}; }
  Traits operator()(const Loss&) const { return {2, true}; }
  Traits operator()(const Metric&) const { return {1, true}; }
  Traits operator()(const Accumulate&) const { return {0, false, 0, sums}; }
  Traits operator()(const BeginForward&) const { return {0, false, 0, pass}; }
  Traits operator()(const BeginUpdate&) const { return {0, false, place, derived}; }
  Traits operator()(const ClipNorm&) const { return {1, false, 0, derived}; }
  Traits operator()(const ApplyUpdate&) const { return {4, false, derived}; }
  Traits operator()(const EndStep&) const { return {0, false, 0, place}; }
};

struct Access {
  Operand operand;
  bool writes, by_rows;
};

// Where it begins and ends in its buffer, in bytes, over all replicas.
struct Extent { std::int64_t begin, end; };

Extent extent(const Operand& o, std::int64_t batch, std::int64_t replicas) {
  const std::int64_t rows = o.rows == Operand::batch ? batch : o.rows, size = size_of(o.dtype);
  const std::int64_t elements =
      (replicas - 1) * o.batch_stride + (rows > 0 ? (rows - 1) * o.row_stride + o.cols : 0);
  return {o.offset * size, (o.offset + elements) * size};
}

bool same_rows(const Access& a, const Access& b) {
  const Operand &x = a.operand, &y = b.operand;
  return a.by_rows && b.by_rows && x.rows == Operand::batch && y.rows == Operand::batch &&
         x.offset == y.offset && x.row_stride == y.row_stride && x.batch_stride == y.batch_stride &&
         x.dtype == y.dtype;
}

bool cross(const Access& a, const Access& b, const Context& c) {
  if (!a.writes && !b.writes) return false;
  if (a.operand.buffer != b.operand.buffer || same_rows(a, b)) return false;
  const Extent x = extent(a.operand, c.rows, c.program.replicas),
               y = extent(b.operand, c.rows, c.program.replicas);
  return x.begin < y.end && y.begin < x.end;
}

}  // namespace

std::vector<bool> barriers(const Program& program, std::int64_t rows, int members) {
  static const bool everywhere = switched_off("phases");
  const Context context{program, rows, members};
  std::vector<bool> result;
  std::vector<Access> since;  // the last barrier
  unsigned read = 0, written = 0;
  for (Record record : program.records) {
    const Traits traits = std::visit(context, record);
    std::vector<Access> now;
    int number = 0;
    std::visit(
        [&](auto& r) {
          r.each([&](const Operand& o) {
            const bool writes = number++ < traits.outputs;
            if (o) now.push_back({o, writes, traits.by_rows});
          });
        },
        record);
    const bool wait = everywhere || (traits.writes & (read | written)) ||
                      (traits.reads & written) ||
                      std::any_of(now.begin(), now.end(), [&](const Access& a) {
                        return std::any_of(since.begin(), since.end(),
                                           [&](const Access& b) { return cross(a, b, context); });
                      });
    result.push_back(wait);
    if (wait) {
      since.clear();
      read = written = 0;
    }
    since.insert(since.end(), now.begin(), now.end());
    read |= traits.reads;
    written |= traits.writes;
  }
  return result;
}

}  // namespace fastmlp::cpu
