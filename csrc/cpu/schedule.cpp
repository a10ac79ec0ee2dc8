#include "cpu/schedule.h"

#include <algorithm>
#include <variant>

#include "core/effects.h"
#include "cpu/features.h"
#include "cpu/matmul.h"

namespace fastmlp::cpu {
namespace {

// Whether records.cpp shares out a record's rows.
struct Context {
  const Program& program;
  std::int64_t rows;
  int members;

  bool operator()(const Gather&) const { return true; }
  bool operator()(const Copy&) const { return true; }
  bool operator()(const MatMul& m) const {
    return shared_by_rows(m, rows, program.replicas, members);
  }
  bool operator()(const ColumnSum&) const { return false; }
  bool operator()(const BiasAdd&) const { return true; }
  bool operator()(const ActivationForward&) const { return true; }
  bool operator()(const ActivationBackward&) const { return true; }
  bool operator()(const Softmax&) const { return true; }
  bool operator()(const SoftmaxBackward&) const { return true; }
  bool operator()(const Prelu&) const { return true; }
  bool operator()(const PreluBackward&) const { return true; }
  bool operator()(const PreluSlope&) const { return false; }
  bool operator()(const Maxout&) const { return true; }
  bool operator()(const MaxoutBackward&) const { return true; }
  bool operator()(const Statistics& s) const { return s.by_row; }
  bool operator()(const Normalise&) const { return true; }
  bool operator()(const NormaliseSums&) const { return false; }
  bool operator()(const NormaliseBackward&) const { return true; }
  bool operator()(const MoveStatistics&) const { return false; }
  bool operator()(const Dropout&) const { return true; }
  bool operator()(const Loss&) const { return true; }
  bool operator()(const Metric&) const { return true; }
  bool operator()(const Accumulate&) const { return false; }
  bool operator()(const BeginForward&) const { return false; }
  bool operator()(const BeginUpdate&) const { return false; }
  bool operator()(const ClipNorm&) const { return false; }
  bool operator()(const ApplyUpdate&) const { return false; }
  bool operator()(const EndStep&) const { return false; }
  bool operator()(const Penalize&) const { return false; }
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
    const Effects effects = effects_of(record);
    const bool by_rows = std::visit(context, record);
    std::vector<Access> now;
    int number = 0;
    std::visit(
        [&](auto& r) {
          r.each([&](const Operand& o) {
            const bool writes = number++ < effects.outputs;
            if (o) now.push_back({o, writes, by_rows});
          });
        },
        record);
    const bool wait = everywhere || (effects.writes & (read | written)) ||
                      (effects.reads & written) ||
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
    read |= effects.reads;
    written |= effects.writes;
  }
  return result;
}

}  // namespace fastmlp::cpu
