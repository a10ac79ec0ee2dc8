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
  bool operator()(const ColumnSum& s) const {
    return s.in.rows == Operand::batch && follow_rows(s.parts, rows, program.replicas, members);
  }
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

// How members share an operand out among them.
enum class Shared { otherwise, by_rows, by_columns };

struct Access {
  Operand operand;
  bool writes;
  Shared shared;
};

// What records.cpp shares out by columns, and not as the rest of the record: x, for halves.
Operand shared_by_columns(const Record& record, const Context& c) {
  const auto* gather = std::get_if<Gather>(&record);
  if (gather && gather->for_halves) return gather->x;
  const auto* product = std::get_if<MatMul>(&record);
  return product && product->in_halves(c.rows) ? product->a : Operand{};
}

// Where it begins and ends in its buffer, in bytes, over all replicas. Parts of a sum lie apart,
// each laid out as the first, which stands for all.
struct Extent { std::int64_t begin, end; };

Extent extent(const Operand& o, std::int64_t batch, std::int64_t replicas) {
  const std::int64_t rows = o.rows == Operand::batch ? batch : o.rows, size = size_of(o.dtype);
  const std::int64_t elements =
      (replicas - 1) * o.batch_stride + (rows > 0 ? (rows - 1) * o.row_stride + o.cols : 0);
  return {o.offset * size, (o.offset + elements) * size};
}

bool overlap(const Operand& a, const Operand& b, std::int64_t batch, std::int64_t replicas) {
  if (!a || !b || a.buffer != b.buffer) return false;
  const Extent x = extent(a, batch, replicas), y = extent(b, batch, replicas);
  return x.begin < y.end && y.begin < x.end;
}

// Whether each member has to do with the same rows, or columns, of both.
bool same_share(const Access& a, const Access& b) {
  const Operand &x = a.operand, &y = b.operand;
  return a.shared == b.shared && a.shared != Shared::otherwise && x.rows == Operand::batch &&
         y.rows == Operand::batch && x.offset == y.offset && x.row_stride == y.row_stride &&
         x.batch_stride == y.batch_stride && x.dtype == y.dtype;
}

bool cross(const Access& a, const Access& b, const Context& c) {
  return (a.writes || b.writes) && !same_share(a, b) &&
         overlap(a.operand, b.operand, c.rows, c.program.replicas);
}

// The parameters' gradient that a record makes alone, or none.
Operand made_gradient(const Record& record) {
  if (const auto* product = std::get_if<MatMul>(&record))
    return product->out.rows != Operand::batch ? product->out : Operand{};
  if (const auto* sum = std::get_if<ColumnSum>(&record)) return sum->out;
  return {};
}

// Of an update of flat arrays, elements `first` to `end`.
ApplyUpdate slice(ApplyUpdate update, std::int64_t first, std::int64_t end) {
  for (Operand* o : {&update.parameter, &update.gradient, &update.moment[0], &update.moment[1],
                     &update.moment[2]}) {
    o->offset += first;
    o->cols = o->row_stride = end - first;
  }
  return update;
}

// Whether the records between a gradient's and its update leave alone what an update at once would
// change, and cannot stop the step; and whether no other has to do with the gradient.
bool may_update_at_once(const Program& program, std::size_t made, std::size_t applied,
                        const ApplyUpdate& part) {
  for (std::size_t i = 0; i < applied; ++i) {
    if (i == made) continue;
    if (i > made && effects_of(program.records[i]).writes) return false;
    bool free = true;
    auto check = [&](const Operand& o) {
      auto meets = [&](const Operand& other) {  // rows of the batch: not among parameters
        return overlap(o, other, 0, program.replicas);
      };
      free = free && !meets(part.gradient) &&
             (i < made || !(meets(part.parameter) || meets(part.moment[0]) ||
                            meets(part.moment[1]) || meets(part.moment[2])));
    };
    Record record = program.records[i];
    std::visit([&](auto& r) { r.each(check); }, record);
    if (!free) return false;
  }
  return true;
}

}  // namespace

std::vector<Updates> updates_of(const Program& program) {
  static const bool at_once = !switched_off("updates") && !uses_blas();
  // What the first-level cache holds with its moments is updated as quickly at the end, by one call
  // for all layers; and a kernel of few rows is better shared out by columns.
  constexpr std::int64_t fewest_bytes = 16 << 10, fewest_rows = 48;
  std::vector<Updates> result(program.records.size());
  for (std::size_t i = 0; i < program.records.size(); ++i) {
    const auto* apply = std::get_if<ApplyUpdate>(&program.records[i]);
    if (!apply) continue;
    const Operand& all = apply->gradient;
    std::vector<Extent> rest{{0, all.cols}};
    const bool large = all.cols * size_of(all.dtype) >= fewest_bytes;
    for (std::size_t j = 0; at_once && all.rows == 1 && j < i; ++j) {
      const auto* sum = std::get_if<ColumnSum>(&program.records[j]);
      if (!large && !(sum && sum->parts)) continue;
      const Operand gradient = made_gradient(program.records[j]);
      if (!gradient || gradient.buffer != all.buffer) continue;
      if (gradient.rows > 1 && gradient.rows < fewest_rows) continue;
      const std::int64_t first = gradient.offset - all.offset,
                         end = first + gradient.rows * gradient.row_stride;
      const auto whole = std::find_if(rest.begin(), rest.end(), [&](const Extent& e) {
        return e.begin <= first && end <= e.end;
      });
      const ApplyUpdate part = slice(*apply, first, end);
      if (whole == rest.end() || !may_update_at_once(program, j, i, part)) continue;
      result[j].push_back(part);
      const Extent behind{end, whole->end};
      whole->end = first;
      rest.insert(whole + 1, behind);
    }
    for (const Extent& e : rest)
      if (e.begin < e.end)
        result[i].push_back(all.rows == 1 ? slice(*apply, e.begin, e.end) : *apply);
  }
  return result;
}

std::vector<bool> barriers(const Program& program, const std::vector<Updates>& updates,
                           std::int64_t rows, int members) {
  static const bool everywhere = switched_off("phases");
  const Context context{program, rows, members};
  const Shared columns =
      follow_halves(program.replicas, members) ? Shared::by_columns : Shared::otherwise;
  std::vector<bool> result;
  std::vector<Access> since;  // the last barrier
  unsigned read = 0, written = 0;
  for (std::size_t i = 0; i < program.records.size(); ++i) {
    std::vector<Access> now;
    Effects effects{};
    auto add = [&](Record record) {
      const Effects own = effects_of(record);
      const Shared rest = std::visit(context, record) ? Shared::by_rows : Shared::otherwise;
      const Operand x = shared_by_columns(record, context);
      int number = 0;
      std::visit(
          [&](auto& r) {
            r.each([&](const Operand& o) {
              const bool writes = number++ < own.outputs;
              if (o) now.push_back({o, writes, x && same_place(o, x) ? columns : rest});
            });
          },
          record);
      effects.reads |= own.reads;
      effects.writes |= own.writes;
    };
    if (!std::holds_alternative<ApplyUpdate>(program.records[i])) add(program.records[i]);
    for (const ApplyUpdate& update : updates[i]) add(update);
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
