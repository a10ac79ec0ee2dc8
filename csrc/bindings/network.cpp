// Networks and plans.
#include <pybind11/stl.h>

#include <array>
#include <map>

#include "bindings/arrays.h"
#include "bindings/bindings.h"
#include "bindings/capsule.h"
#include "core/check.h"
#include "nn/lowering.h"
#include "nn/network.h"
#include "nn/trainer.h"

namespace fastmlp::bindings {
namespace {

constexpr const char* buffer_names[buffer_count] = {
    "parameters", "gradients", "moment0",         "moment1",        "moment2",
    "state",      "workspace", "step_state",      "input",          "target",
    "weight",     "output",    "output_gradient", "input_gradient", "learning_rates"};

// The arrays that plans work on, in the memory of one backend; keeps them, and it, alive.
class Arguments {
 public:
  explicit Arguments(py::capsule backend)
      : backend_(std::move(backend)), device_(has_streams(backend_) ? Device::cuda : Device::cpu) {}

  void set(const std::string& name, py::object array) {
    for (int i = 0; i < buffer_count; ++i) {
      if (name != buffer_names[i]) continue;
      const Memory memory = array.is_none() ? Memory{} : memory_of(array);
      if (!array.is_none() && !memory.contiguous) fail(name, "a contiguous array", "strides");
      if (!array.is_none() && memory.device != device_)
        throw py::type_error(name + ": this array is not in the memory of the plan's device");
      memory_[i] = memory;
      arrays_[i] = std::move(array);
      data_[i] = memory.data;
      return;
    }
    throw py::value_error("unknown buffer '" + name + "'");
  }
  const Memory& memory(int buffer) const { return memory_[buffer]; }
  // An operand's rows as an array, of the kind that the buffer is.
  py::object array(const Operand& operand, std::int64_t rows) const {
    if (!operand) return py::none();
    const py::slice part(operand.offset, operand.offset + rows * operand.row_stride, 1);
    const py::object flat = arrays_[std::size_t(operand.buffer)].attr("reshape")(-1)[part];
    return flat.attr("reshape")(
        rows, operand.row_stride)[py::make_tuple(py::ellipsis(), py::slice(0, operand.cols, 1))];
  }
  // The buffers, the stream as it is now, and one step: what every launch begins as.
  Launch launch() const {
    Launch launch;
    launch.buffers = data_.data();
    launch.stream = current_stream(backend_);
    return launch;
  }

 private:
  py::capsule backend_;
  Device device_;
  std::array<py::object, buffer_count> arrays_;
  std::array<Memory, buffer_count> memory_;
  std::array<void*, buffer_count> data_{};
};

// How much of a buffer a program touches, so that a wrong array is an error and never a crash.
class Extents {
 public:
  explicit Extents(const nn::Lowered& lowered) : replicas_(lowered.programs.front().replicas) {
    const auto take = [&](const Operand& o) { add(o); };
    for (const Program& program : lowered.programs)
      for (const Record& record : program.records)
        std::visit([&](auto r) { r.each(take); }, record);
    for (nn::HostCall call : lowered.calls) call.each(take);
    if (fixed_.count(Buffer::workspace))
      fixed_[Buffer::workspace] = {lowered.workspace * replicas_, lowered.programs.front().dtype};
  }

  void check(const Arguments& arguments, std::int64_t rows) const {
    for (const auto& [buffer, need] : fixed_) check(arguments, buffer, need.size, need.dtype);
    for (const Operand& o : batch_) check(arguments, o.buffer, end(o, rows), o.dtype);
  }

 private:
  struct Need {
    std::int64_t size;
    DType dtype;
  };

  std::int64_t end(const Operand& o, std::int64_t rows) const {
    if (rows == 0) return 0;
    return o.offset + (replicas_ - 1) * o.batch_stride + (rows - 1) * o.row_stride + o.cols;
  }

  void add(const Operand& o) {
    if (!o) return;
    if (o.rows == Operand::batch && o.buffer != Buffer::workspace) {
      batch_.push_back(o);
    } else {
      Need& need = fixed_.emplace(o.buffer, Need{0, o.dtype}).first->second;
      if (o.rows != Operand::batch) need.size = std::max(need.size, end(o, o.rows));
    }
  }

  static void check(const Arguments& arguments, int buffer, std::int64_t size, DType dtype) {
    const Memory& memory = arguments.memory(buffer);
    const char kind = dtype == DType::int32 ? 'i' : 'f';
    if (memory.size < size || (size && (memory.kind != kind || memory.item_size != size_of(dtype))))
      fail(buffer_names[buffer], std::to_string(size) + " elements of " + name(dtype),
           std::to_string(memory.size) + " of " + memory.kind + std::to_string(memory.item_size));
  }

  std::int64_t replicas_;
  std::map<int, Need> fixed_;
  std::vector<Operand> batch_;
};

// Each record as a profile shows it: name, shape, and a product's floating-point operations.
py::list describe(const Program& program, std::int64_t batch) {
  auto size = [&](std::int64_t rows) { return rows == Operand::batch ? batch : rows; };
  py::list result;
  for (Record record : program.records) {
    std::visit(
        [&](auto& r) {
          Operand first;
          r.each([&](const Operand& o) { first = first ? first : o; });
          std::string shape;
          std::int64_t operations = 0;
          if (first) shape = std::to_string(size(first.rows)) + " x " + std::to_string(first.cols);
          if constexpr (std::is_same_v<std::decay_t<decltype(r)>, MatMul>) {
            const ProductShape product(r, batch);
            shape += " x " + std::to_string(product.k);
            shape += r.transpose_a ? ", a transposed" : r.transpose_b ? ", b transposed" : "";
            operations = program.replicas * std::int64_t(product.operations());
          }
          result.append(py::make_tuple(r.name, shape, operations));
        },
        record);
  }
  return result;
}

// A program in which the host takes a part, for one call: the pieces of the program by turns with
// `host(layer, training, out, in, gradient, y)` on arrays of the buffers, for which it holds the
// GIL.
class Hosted : public Executable {
 public:
  Hosted(Backend& backend, std::vector<std::unique_ptr<Executable>>& parts,
         const std::vector<nn::HostCall>& calls, const Arguments& arguments, const py::object& host)
      : backend_(backend), parts_(parts), calls_(calls), arguments_(arguments), host_(host) {}

  const Program& program() const override { return parts_.front()->program(); }

  void run(const Launch& launch) override {
    if (launch.profile) throw std::runtime_error("profile: needs layers that the core computes");
    Launch once = launch;
    once.repeat = 1;
    for (std::int64_t step = 0; step < launch.repeat && !stopped(once); ++step) {
      for (std::size_t i = 0; i < parts_.size(); ++i) {
        parts_[i]->run(once);
        if (i < calls_.size()) call(calls_[i], launch.rows);
      }
    }
  }

 private:
  void call(const nn::HostCall& c, std::int64_t rows) const {
    const py::gil_scoped_acquire acquire;
    host_(c.layer, c.training, arguments_.array(c.out, rows), arguments_.array(c.in, rows),
          arguments_.array(c.gradient, rows), arguments_.array(c.y, rows));
  }

  // Whether the last step's loss was not finite: the pieces of a program stop each for itself.
  bool stopped(const Launch& launch) const {
    if (launch.repeat == 1 || !launch.buffers[step_state]) return false;
    StepState state;
    backend_.read(&state, launch.buffers[step_state], sizeof state, launch.stream);
    return state.not_finite != 0;
  }

  Backend& backend_;
  std::vector<std::unique_ptr<Executable>>& parts_;
  const std::vector<nn::HostCall>& calls_;
  const Arguments& arguments_;
  const py::object& host_;
};

class Plan {
 public:
  Plan(const nn::Network& network, const nn::PlanOptions& options)
      : Plan(network.backend(), nn::lower(network, options), options.rows) {}
  Plan(Plan&&) = default;

  void run(const Arguments& arguments, std::int64_t rows, const py::object& host) {
    check(arguments, rows, rows);
    Launch launch = arguments.launch();
    launch.rows = launch.total_rows = rows;
    on_executable(arguments, host, [&](Executable& executable) { executable.run(launch); });
  }

  std::int64_t train(const Arguments& arguments, std::int64_t total_rows, std::int64_t steps,
                     double seconds, const py::object& host) {
    check(arguments, std::min(rows_, total_rows), total_rows);
    const Memory& state = arguments.memory(Buffer::step_state);
    if (!state.data) fail("train", "a step state", "none");
    nn::TrainingCall call;
    call.launch = arguments.launch();
    call.launch.total_rows = total_rows;
    call.batch_size = rows_;
    call.max_steps = steps;
    call.seconds = seconds;
    std::int64_t done = 0;
    on_executable(arguments, host,
                  [&](Executable& executable) { done = nn::train(executable, backend_, call); });
    return done;
  }

  // Steps of whole batches from the first row on: what each record is, how many operations it has
  // as a product, and the seconds (steps, members, records) that it was worked on and waited for.
  py::tuple profile(const Arguments& arguments, std::int64_t total_rows, std::int64_t steps) {
    if (steps < 1 || steps > total_rows / rows_)
      fail("profile", "1 to " + std::to_string(total_rows / rows_) + " steps",
           std::to_string(steps));
    check(arguments, rows_, total_rows);
    Profile profile;
    Launch launch = arguments.launch();
    launch.rows = rows_;
    launch.total_rows = total_rows;
    launch.repeat = steps;
    launch.profile = &profile;
    on_executable(arguments, py::none(), [&](Executable& executable) { executable.run(launch); });
    const Program& program = parts_.front()->program();
    auto cells = [&](const std::vector<float>& seconds) {
      return py::array_t<float>(
          {py::ssize_t(steps), py::ssize_t(profile.members), py::ssize_t(program.records.size())},
          seconds.data());
    };
    return py::make_tuple(describe(program, rows_), cells(profile.working), cells(profile.waiting));
  }

  std::int64_t workspace() const { return workspace_; }

 private:
  Plan(Backend& backend, nn::Lowered lowered, std::int64_t rows)
      : backend_(backend),
        rows_(rows),
        workspace_(lowered.workspace),
        extents_(lowered),
        calls_(std::move(lowered.calls)) {
    for (Program& program : lowered.programs) parts_.push_back(backend.compile(std::move(program)));
  }

  // Calls f with the program, without the GIL.
  template <class F>
  void on_executable(const Arguments& arguments, const py::object& host, F&& f) {
    if (calls_.empty()) {
      const py::gil_scoped_release release;
      return f(*parts_.front());
    }
    Hosted hosted(backend_, parts_, calls_, arguments, host);
    const py::gil_scoped_release release;
    f(hosted);
  }

  void check(const Arguments& arguments, std::int64_t rows, std::int64_t outside_rows) const {
    if (rows > rows_) fail("plan", std::to_string(rows_) + " rows at most", std::to_string(rows));
    extents_.check(arguments, outside_rows);
  }

  Backend& backend_;
  std::int64_t rows_, workspace_;
  Extents extents_;
  std::vector<nn::HostCall> calls_;
  std::vector<std::unique_ptr<Executable>> parts_;  // of the program, one more than calls
};

// ---- from Python's dicts to the core's structs

template <class T>
T get(const py::dict& dict, const char* key) {
  if (!dict.contains(key)) throw py::value_error(std::string("missing '") + key + "'");
  return py::cast<T>(dict[key]);
}

// A setting that is 0 unless it is given.
double number(const py::dict& dict, const char* key) {
  return dict.contains(key) ? get<double>(dict, key) : 0;
}

nn::Layer layer_from(const py::dict& stage) {
  const auto kind = get<std::string>(stage, "kind");
  const int layer = get<int>(stage, "layer");
  if (kind == "dense")
    return nn::Dense{layer,
                     get<std::int64_t>(stage, "units"),
                     get<bool>(stage, "use_bias"),
                     {},
                     {number(stage, "l1"), number(stage, "l2")}};
  if (kind == "activation")
    return nn::Elementwise{
        activation_named(get<std::string>(stage, "name"), get<double>(stage, "parameter"))};
  if (kind == "softmax") return nn::SoftmaxLayer{get<bool>(stage, "logarithm")};
  if (kind == "prelu") return nn::PreluLayer{layer, get<bool>(stage, "shared")};
  if (kind == "maxout") return nn::MaxoutLayer{get<std::int64_t>(stage, "pieces")};
  if (kind == "normalisation")
    return nn::Normalisation{layer, get<bool>(stage, "by_row"), get<bool>(stage, "affine"),
                             get<double>(stage, "epsilon"), get<double>(stage, "momentum")};
  if (kind == "host")
    return nn::HostLayer{layer, get<std::int64_t>(stage, "units"),
                         get<decltype(nn::HostLayer::parameters)>(stage, "parameters")};
  if (kind == "dropout") return nn::DropoutLayer{layer, get<double>(stage, "rate")};
  throw py::value_error("unknown kind of stage '" + kind + "'");
}

Update make_update(const std::string& rule, double weight_decay, bool decoupled, double clip_norm,
                   double clip_value, double momentum, bool nesterov, double beta1, double beta2,
                   double epsilon, bool amsgrad, double alpha, bool centered) {
  static const std::map<std::string, UpdateRule> rules = {
      {"sgd", UpdateRule::sgd}, {"adam", UpdateRule::adam}, {"rmsprop", UpdateRule::rmsprop}};
  const auto found = rules.find(rule);
  if (found == rules.end()) throw py::value_error("unknown rule '" + rule + "'");
  return {found->second, weight_decay, decoupled, clip_norm, clip_value, momentum, nesterov,
          beta1,         beta2,        epsilon,   amsgrad,   alpha,      centered};
}

nn::Section section_named(const std::string& name) {
  static const std::map<std::string, nn::Section> sections = {
      {"infer", nn::Section::infer},       {"forward", nn::Section::forward},
      {"backward", nn::Section::backward}, {"train", nn::Section::train},
      {"evaluate", nn::Section::evaluate}, {"update", nn::Section::update},
      {"penalty", nn::Section::penalty}};
  const auto found = sections.find(name);
  if (found == sections.end()) throw py::value_error("unknown section '" + name + "'");
  return found->second;
}

MetricKind metric_named(const std::string& name) {
  if (name == "accuracy") return MetricKind::accuracy;
  if (name == "mse") return MetricKind::mse;
  if (name == "mae") return MetricKind::mae;
  throw py::value_error("unknown metric '" + name + "'");
}

DType dtype_named(const std::string& name) {
  if (name == "float32") return DType::float32;
  if (name == "float64") return DType::float64;
  throw py::value_error("dtype: needs float32 or float64, got " + name);
}

// None stands for full precision.
Precision precision_named(const std::optional<std::string>& wanted, const nn::Network& network) {
  if (!wanted) return Precision::full;
  for (const Precision precision : network.backend().precisions())
    if (*wanted == name(precision) && network.dtype() == DType::float32) return precision;
  fail("precision", "one that the device has, in float32", *wanted);
}

Plan make_plan(const nn::Network& network, const std::string& section, std::int64_t rows,
               const std::optional<std::string>& precision, bool training,
               const std::optional<std::string>& loss, const std::vector<std::string>& metrics,
               const std::optional<Update>& update, bool shuffle, bool labels, bool weighted,
               double loss_parameter, bool loss_sum) {
  nn::PlanOptions options;
  options.section = section_named(section);
  options.rows = rows;
  options.precision = precision_named(precision, network);
  options.training = training;
  if (loss) options.loss = loss_named(*loss, loss_parameter, loss_sum);
  for (const std::string& metric : metrics) options.metrics.push_back(metric_named(metric));
  if (int(metrics.size()) + 1 > StepState::max_sums)
    fail("metrics", "at most " + std::to_string(StepState::max_sums - 1),
         std::to_string(metrics.size()));
  options.update = update;
  options.shuffle = shuffle;
  options.labels = labels;
  options.weighted = weighted;
  if (options.section == nn::Section::train && !update) fail("train", "an optimizer", "none");
  if ((options.section == nn::Section::train || options.section == nn::Section::evaluate) && !loss)
    fail(section, "a loss", "none");
  return Plan(network, options);
}

py::list tensors(const nn::Network& network) {
  py::list result;
  for (const nn::Tensor& t : network.tensors()) {
    py::dict entry;
    entry["layer"] = t.layer;
    entry["name"] = t.name;
    entry["buffer"] = buffer_names[t.buffer];
    entry["offset"] = t.offset;
    entry["shape"] =
        t.is_vector ? py::tuple(py::make_tuple(t.cols)) : py::tuple(py::make_tuple(t.rows, t.cols));
    entry["stride"] = t.row_stride;
    result.append(entry);
  }
  return result;
}

}  // namespace

void add_network(py::module_& module) {
  using namespace py::literals;

  py::class_<Update>(module, "Update")
      .def(py::init(&make_update), py::kw_only(), "rule"_a, "weight_decay"_a = 0.0,
           "decoupled"_a = false, "clip_norm"_a = 0.0, "clip_value"_a = 0.0, "momentum"_a = 0.0,
           "nesterov"_a = false, "beta1"_a = 0.9, "beta2"_a = 0.999, "epsilon"_a = 1e-8,
           "amsgrad"_a = false, "alpha"_a = 0.99, "centered"_a = false)
      .def_property_readonly("moments", &Update::moments);

  py::class_<Arguments>(module, "Arguments")
      .def(py::init<py::capsule>(), "backend"_a)
      .def("__setitem__", &Arguments::set);

  py::class_<Plan>(module, "Plan")
      .def_property_readonly("workspace", &Plan::workspace)
      .def("run", &Plan::run, "arguments"_a, "rows"_a, "host"_a = py::none())
      .def("train", &Plan::train, "arguments"_a, "total_rows"_a, "steps"_a, "seconds"_a,
           "host"_a = py::none())
      .def("profile", &Plan::profile);

  py::class_<nn::Network, std::shared_ptr<nn::Network>>(module, "Network")
      .def(
          py::init([](const std::vector<py::dict>& stages, std::int64_t features,
                      const std::string& dtype, std::int64_t replicas, const py::capsule& backend) {
            std::vector<nn::Layer> layers;
            for (const py::dict& stage : stages) layers.push_back(layer_from(stage));
            return std::make_shared<nn::Network>(std::move(layers), features, dtype_named(dtype),
                                                 replicas, backend_of(backend));
          }),
          "stages"_a, "features"_a, "dtype"_a, "replicas"_a, "backend"_a)
      .def_property_readonly("parameters", &nn::Network::parameters)
      .def_property_readonly("state", &nn::Network::state)
      .def_property_readonly("outputs", &nn::Network::outputs)
      .def_property_readonly("tensors", &tensors)
      .def("loss_includes_ending",
           [](const nn::Network& network, const std::string& loss) {
             return nn::loss_includes_ending(network, formula_named<Losses>("loss", loss));
           })
      .def("plan", &make_plan, "section"_a, "rows"_a, py::kw_only(), "precision"_a = py::none(),
           "training"_a = false, "loss"_a = py::none(), "metrics"_a = std::vector<std::string>{},
           "update"_a = py::none(), "shuffle"_a = false, "labels"_a = false, "weighted"_a = false,
           "loss_parameter"_a = 0.0, "loss_sum"_a = false);
}

}  // namespace fastmlp::bindings
