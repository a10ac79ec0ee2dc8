#include "nn/lowering.h"

#include <algorithm>
#include <utility>

#include "core/check.h"

namespace fastmlp::nn {
namespace {

constexpr int sigmoid_index = Activations::index_of<Sigmoid>();
constexpr int cross_entropy_index = Losses::index_of<CrossEntropy>();
constexpr int binary_cross_entropy_index = Losses::index_of<BinaryCrossEntropy>();
constexpr int hinge_index = Losses::index_of<Hinge>();
constexpr int perceptron_index = Losses::index_of<Perceptron>();

// The elementwise activation that a layer ends in, if any.
const Activation* ending_activation(const Layer& layer) {
  if (const auto* dense = std::get_if<Dense>(&layer)) return &dense->activation;
  if (const auto* elementwise = std::get_if<Elementwise>(&layer)) return &elementwise->activation;
  return nullptr;
}

bool ends_in_softmax(const Network& network) {
  return !network.layers().empty() && std::holds_alternative<SoftmaxLayer>(network.layers().back());
}

bool ends_in_sigmoid(const Network& network) {
  if (network.layers().empty()) return false;
  const Activation* activation = ending_activation(network.layers().back());
  return activation && activation->index == sigmoid_index;
}

// Builds one program. The workspace is laid out by the same walk for every section of equal `rows`
// and `training`, so that `backward` finds what `forward` kept.
class Lowering {
 public:
  Lowering(const Network& network, const PlanOptions& options)
      : network_(network),
        options_(options),
        keep_(options.section != Section::infer && options.section != Section::evaluate) {
    const bool with_loss =
        options.section == Section::train || options.section == Section::evaluate;
    from_logits_ = with_loss && loss_includes_ending(network, options.loss.index);
    layers_ = network.layers();
    if (from_logits_) strip_ending();
    if (!options.training) {
      layers_.erase(std::remove_if(layers_.begin(), layers_.end(),
                                   [](const Layer& layer) {
                                     return std::holds_alternative<DropoutLayer>(layer);
                                   }),
                    layers_.end());
    }
    lay_out();
  }

  Lowered lower() {
    switch (options_.section) {
      case Section::infer: forward(); break;
      case Section::forward:
        if (options_.training) emit(BeginForward{});
        emit(Copy{values_.front(), outside(Buffer::input, network_.features())});
        forward();
        move_statistics();
        emit(Copy{outside(Buffer::output, network_.outputs()), values_.back()});
        break;
      case Section::backward:
        emit(Copy{gradients_.back(), outside(Buffer::output_gradient, network_.outputs())});
        backward(true);
        emit_kept_back();
        break;
      case Section::train:
        emit(BeginForward{});
        emit(BeginUpdate{*options_.update});
        gather();
        forward();
        loss();
        metrics();
        backward(false);
        emit_kept_back();
        move_statistics();
        update();
        break;
      case Section::evaluate:
        forward();
        loss();
        metrics();
        emit_kept_back();
        break;
      case Section::update:
        emit(BeginUpdate{*options_.update});
        update();
        break;
      case Section::penalty:
        for (const Layer& layer : layers_)
          if (const auto* dense = std::get_if<Dense>(&layer)) penalize(*dense);
        emit_kept_back();
        break;
    }
    for (Program& program : lowered_.programs) {
      program.dtype = network_.dtype();
      program.precision = options_.precision;
      program.replicas = network_.replicas();
    }
    lowered_.workspace = workspace_;
    fix_workspace_stride();
    return std::move(lowered_);
  }

 private:
  void emit(Record record) { lowered_.programs.back().records.push_back(std::move(record)); }
  void emit(HostCall call) {
    lowered_.calls.push_back(std::move(call));
    lowered_.programs.emplace_back();
  }

  // Sums over the batch wait until all that goes row by row is done: a team then walks through the
  // rows without meeting, and meets once before the sums.
  void keep_back(Record record) { kept_back_.push_back(std::move(record)); }
  void emit_kept_back() {
    for (Record& record : kept_back_) emit(std::move(record));
    kept_back_.clear();
  }

  // ---- operands

  // Rows somewhere in the workspace, padded as the device likes it.
  Operand allocate(std::int64_t rows, std::int64_t cols, DType dtype) {
    const std::int64_t stride = network_.backend().leading_dimension(cols, dtype);
    // Offsets count elements of the operand's own dtype; every region starts on a 64-byte boundary.
    const std::int64_t element = size_of(network_.dtype());
    const std::int64_t count = rows == Operand::batch ? options_.rows : rows;
    const std::int64_t bytes = (count * stride * size_of(dtype) + 63) / 64 * 64;
    const Operand operand{
        Buffer::workspace, workspace_ * element / size_of(dtype), rows, cols, stride, 0, dtype};
    workspace_ += bytes / element;
    return operand;
  }
  Operand allocate(std::int64_t cols) { return allocate(Operand::batch, cols, network_.dtype()); }
  Operand allocate_row(std::int64_t cols) { return allocate(1, cols, network_.dtype()); }

  // One number for each row, next to each other.
  Operand allocate_column(DType dtype) {
    Operand column = allocate(Operand::batch, 1, dtype);
    column.row_stride = 1;
    return column;
  }

  // A region of the workspace as rows of another width.
  Operand reshaped(Operand region, std::int64_t cols) const {
    region.cols = cols;
    region.row_stride = network_.backend().leading_dimension(cols, network_.dtype());
    return region;
  }

  // An array that came with the call: rows lie one after the other, one array for each replica.
  Operand outside(int buffer, std::int64_t cols, std::int64_t batch_stride, DType dtype) const {
    return {buffer, 0, Operand::batch, cols, cols, batch_stride, dtype};
  }
  // The data is the same for all replicas; what comes out is not.
  Operand outside(int buffer, std::int64_t cols) const {
    const bool shared =
        buffer == Buffer::input || buffer == Buffer::target || buffer == Buffer::weight;
    return outside(buffer, cols, shared ? 0 : options_.rows * cols, network_.dtype());
  }

  Operand target() const {
    return options_.labels ? outside(Buffer::target, 1, 0, DType::int32)
                           : outside(Buffer::target, network_.outputs());
  }

  // ---- layout

  void strip_ending() {
    if (std::holds_alternative<SoftmaxLayer>(layers_.back()))
      layers_.pop_back();
    else if (auto* dense = std::get_if<Dense>(&layers_.back()))
      dense->activation = Activation{};
    else
      layers_.pop_back();
  }

  void lay_out() {
    std::int64_t width = network_.features(), widest = width;
    for (const Layer& layer : layers_) {
      width = output_width(layer, width);
      widths_.push_back(width);
      widest = std::max(widest, width);
    }
    if (options_.section == Section::update || options_.section == Section::penalty) return;
    if (keep_) {
      values_.push_back(allocate(network_.features()));
      for (std::size_t i = 0; i < layers_.size(); ++i) {
        before_.push_back(keeps_input_of_activation(layers_[i]) ? allocate(widths_[i]) : Operand{});
        values_.push_back(allocate(widths_[i]));
        halves_.push_back(room_for_half(i));
        lay_out_normalisation(layers_[i], widths_[i]);
      }
      gradients_.resize(values_.size());
      gradients_.back() = allocate(widths_.empty() ? network_.features() : widths_.back());
      for (std::size_t i = layers_.size(); i-- > 0;)
        gradients_[i] = needs_room(i) ? allocate(values_[i].cols) : gradients_[i + 1];
      parts_ = batch_parts();
    } else {
      const Operand regions[2] = {allocate(widest), allocate(widest)};
      values_.push_back(outside(Buffer::input, network_.features()));
      before_.resize(layers_.size());
      halves_.resize(layers_.size());
      for (std::size_t i = 0; i < layers_.size(); ++i)
        values_.push_back(reshaped(regions[i % 2], widths_[i]));
      for (std::size_t i = 0; i < layers_.size(); ++i)
        lay_out_normalisation(layers_[i], widths_[i]);
      if (options_.section == Section::infer) {
        if (layers_.empty())
          emit(Copy{outside(Buffer::output, network_.outputs()), values_.front()});
        values_.back() = outside(Buffer::output, network_.outputs());
      }
    }
  }

  // Whether gradients are sums of parts, and where these lie, each laid out as the gradients are.
  // They pay where a step has much to do and gradients are small beside what they are made from:
  // else what a thread made of its rows would go to the others, and come back to be written anew.
  BatchParts batch_parts() {
    if (!network_.backend().takes_parts()) return {};
    std::int64_t weights = 0, activations = 0;  // of a row
    for (const Layer& layer : layers_)
      if (const auto* dense = std::get_if<Dense>(&layer)) {
        const Operand kernel = network_.operand(dense->layer, "kernel", gradients);
        weights += kernel.rows * kernel.row_stride;
        activations += kernel.rows + kernel.cols;
      }
    if (weights == 0) return {};
    constexpr std::int64_t fewest_rows = 256, fewest_products = 80'000, enough_rows = 8;
    const BatchParts parts{
        std::max({fewest_rows, enough_rows * weights / activations, fewest_products / weights}),
        network_.parameters()};
    const std::int64_t most = parts.count(options_.rows);
    if (most == 1) return {};
    of_parts_ = allocate(1, most * parts.stride, network_.dtype());
    of_parts_.rows = most;
    return parts;
  }

  // Where layer i's sums are taken in halves, the second ones: where a kernel, and what is gathered
  // for it, are large beside the sums. Threads then hand these to each other, and not the kernel.
  Operand room_for_half(std::size_t i) {
    const auto* dense = std::get_if<Dense>(&layers_[i]);
    if (!dense || !network_.backend().takes_parts()) return {};
    constexpr std::int64_t fewest = 512, factor = 8;
    const std::int64_t k = values_[i].cols, n = widths_[i];
    if (k < fewest) return {};
    // The most rows with k (n + rows) >= factor n rows.
    const std::int64_t most = factor * n > k ? k * n / (factor * n - k) : options_.rows;
    return allocate(std::min(most, options_.rows), n, network_.dtype());
  }

  // Where layer i's input gradient has a place of its own: what learns needs that of its output
  // again when all rows are done, and no other can be in place where widths differ. The caller has
  // a place for a first dense layer's.
  bool needs_room(std::size_t i) const {
    if (i == 0 && std::holds_alternative<Dense>(layers_[i])) return false;
    return learns(layers_[i]) || std::holds_alternative<HostLayer>(layers_[i]) ||
           values_[i].cols != values_[i + 1].cols;
  }

  static bool learns(const Layer& layer) {
    return std::visit(
        Overloaded{[](const auto&) { return false; }, [](const Dense&) { return true; },
                   [](const PreluLayer&) { return true; },
                   [](const Normalisation& norm) { return norm.affine; },
                   [](const HostLayer& host) { return !host.parameters.empty(); }},
        layer);
  }

  static bool keeps_input_of_activation(const Layer& layer) {
    const auto* dense = std::get_if<Dense>(&layer);
    return dense && !derivative_from_output(dense->activation);
  }

  // The workspace's size is the stride from replica to replica, known only when all is laid out.
  void fix_workspace_stride() {
    const std::int64_t element = size_of(network_.dtype());
    auto fix = [&](Operand& operand) {
      if (operand.buffer == Buffer::workspace)
        operand.batch_stride = workspace_ * element / size_of(operand.dtype);
    };
    for (Program& program : lowered_.programs)
      for (Record& record : program.records) std::visit([&](auto& r) { r.each(fix); }, record);
    for (HostCall& call : lowered_.calls) call.each(fix);
  }

  // What a normalisation works with: where the mean and the variance are, those of the batch while
  // training, and of rows always, else those that training has left; and the sums of the gradient.
  struct Moments { Operand mean, variance, gamma_sum, beta_sum; };

  void lay_out_normalisation(const Layer& any, std::int64_t width) {
    Moments& m = moments_.emplace_back();
    const auto* layer = std::get_if<Normalisation>(&any);
    if (!layer) return;
    if (layer->by_row)
      m.mean = allocate_column(network_.dtype()), m.variance = allocate_column(network_.dtype());
    else if (options_.training)
      m.mean = allocate_row(width), m.variance = allocate_row(width);
    else
      m.mean = network_.operand(layer->layer, "running_mean", state),
      m.variance = network_.operand(layer->layer, "running_variance", state);
    if (layer->affine) {
      m.gamma_sum = network_.operand(layer->layer, "gamma", gradients);
      m.beta_sum = network_.operand(layer->layer, "beta", gradients);
    } else if (of_batch(*layer)) {
      m.gamma_sum = allocate_row(width), m.beta_sum = allocate_row(width);
    }
  }

  // Whether the statistics are those of the batch, so that each row depends on all.
  bool of_batch(const Normalisation& layer) const { return !layer.by_row && options_.training; }

  // ---- sections

  void gather() {
    Gather rows;
    rows.shuffled = options_.shuffle;
    rows.for_halves = !halves_.empty() && halves_.front() && options_.rows <= halves_.front().rows;
    rows.x = values_.front();
    rows.from_x = outside(Buffer::input, network_.features());
    rows.from_target = target();
    const Operand& given = rows.from_target;
    target_ = rows.target = options_.labels ? allocate_column(given.dtype) : allocate(given.cols);
    if (options_.weighted) {
      weight_ = rows.weight = allocate_column(network_.dtype());
      rows.from_weight = outside(Buffer::weight, 1);
    }
    emit(rows);
  }

  void forward() {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const Operand &in = values_[i], &out = values_[i + 1];
      std::visit(
          Overloaded{
              [&](const Dense& dense) {
                MatMul product{out, in, network_.operand(dense.layer, "kernel", parameters)};
                product.bias = network_.operand(dense.layer, "bias", parameters);
                product.before = before_[i];
                product.second_half = halves_[i];
                product.activation = dense.activation;
                emit(product);
              },
              [&](const Elementwise& layer) { emit(ActivationForward{out, in, layer.activation}); },
              [&](const SoftmaxLayer& layer) { emit(Softmax{out, in, layer.logarithm}); },
              [&](const PreluLayer& layer) {
                emit(Prelu{out, in, network_.operand(layer.layer, "alpha", parameters)});
              },
              [&](const MaxoutLayer&) { emit(Maxout{out, in}); },
              [&](const Normalisation& layer) { normalise(layer, i); },
              [&](const HostLayer& layer) {
                emit(HostCall{layer.layer, options_.training, out, in, {}, {}});
              },
              [&](const DropoutLayer& layer) {
                emit(Dropout{out, in, layer.rate, std::uint64_t(layer.layer)});
              },
          },
          layers_[i]);
    }
  }

  void normalise(const Normalisation& layer, std::size_t i) {
    const Moments& m = moments_[i];
    const Operand &in = values_[i], &out = values_[i + 1];
    if (layer.by_row || options_.training) emit(Statistics{m.mean, m.variance, in, layer.by_row});
    emit(Normalise{out, in, m.mean, m.variance, network_.operand(layer.layer, "gamma", parameters),
                   network_.operand(layer.layer, "beta", parameters), layer.epsilon, layer.by_row});
  }

  // When nothing can stop the step any more.
  void move_statistics() {
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      const auto* layer = std::get_if<Normalisation>(&layers_[i]);
      if (layer && of_batch(*layer))
        emit(MoveStatistics{network_.operand(layer->layer, "running_mean", state),
                            network_.operand(layer->layer, "running_variance", state),
                            moments_[i].mean, moments_[i].variance, layer->momentum});
    }
  }

  void loss() {
    if (!target_) {  // evaluate: straight from the caller's arrays
      target_ = target();
      if (options_.weighted) weight_ = outside(Buffer::weight, 1);
    }
    const Operand row_loss = allocate_column(network_.dtype());
    Loss record{row_loss, {}, values_.back(), target_, weight_, options_.loss};
    if (keep_) record.gradient = gradients_.back();
    if (options_.loss.sum) record.divisor = 1;
    emit(record);
    keep_back(Accumulate{row_loss, 0, keep_});
  }

  void metrics() {
    const int loss = options_.loss.index;
    const bool binary = loss == binary_cross_entropy_index;
    const bool by_sign = loss == hinge_index || loss == perceptron_index;
    Operand prediction;  // what the user's network puts out, where the loss needed only logits
    for (std::size_t i = 0; i < options_.metrics.size(); ++i) {
      const MetricKind kind = options_.metrics[i];
      if (options_.labels && kind != MetricKind::accuracy)
        fail("metrics", "accuracy where the targets are class labels", "mse or mae");
      const Operand row_value = allocate_column(network_.dtype());
      Metric metric{row_value, values_.back(), target_, kind};
      if (kind == MetricKind::accuracy) {
        metric.elementwise = !options_.labels && (binary || by_sign || network_.outputs() == 1);
        if (from_logits_ || by_sign || (binary && !ends_in_sigmoid(network_))) metric.threshold = 0;
      } else if (from_logits_) {
        if (!prediction) {
          prediction = allocate(network_.outputs());
          emit_ending(prediction);
        }
        metric.prediction = prediction;
      }
      emit(metric);
      keep_back(Accumulate{row_value, int(i) + 1, false});
    }
  }

  void emit_ending(const Operand& out) {
    if (const auto* softmax = std::get_if<SoftmaxLayer>(&network_.layers().back()))
      emit(Softmax{out, values_.back(), softmax->logarithm});
    else
      emit(ActivationForward{out, values_.back(), Activation{sigmoid_index, 0}});
  }

  void backward(bool to_input) {
    bool derivative_applied = false;  // by the epilogue of the matmul that made the gradient
    const std::size_t first = to_input ? 0 : first_with_parameters();
    for (std::size_t i = layers_.size(); i-- > first;) {
      const Operand& g = gradients_[i + 1];
      std::visit(Overloaded{
                     [&](const Dense& dense) {
                       if (!derivative_applied && !dense.activation.is_identity())
                         emit(ActivationBackward{g, g, kept(i), dense.activation});
                       derivative_applied = dense_backward(dense, i, g, i > first || to_input);
                     },
                     [&](const Elementwise& layer) {
                       if (!derivative_applied)
                         emit(ActivationBackward{g, g, kept(i), layer.activation});
                       derivative_applied = false;
                     },
                     [&](const SoftmaxLayer& layer) {
                       emit(SoftmaxBackward{g, g, values_[i + 1], layer.logarithm});
                     },
                     [&](const PreluLayer& layer) {
                       keep_back(PreluSlope{network_.operand(layer.layer, "alpha", gradients), g,
                                            values_[i]});
                       if (i > first || to_input)
                         emit(PreluBackward{gradients_[i], g, values_[i],
                                            network_.operand(layer.layer, "alpha", parameters)});
                     },
                     [&](const MaxoutLayer&) {
                       emit(MaxoutBackward{gradients_[i], g, values_[i], values_[i + 1]});
                     },
                     [&](const Normalisation& layer) {
                       normalise_backward(layer, i, g, i > first || to_input);
                     },
                     [&](const HostLayer& layer) {
                       emit(HostCall{layer.layer, options_.training, gradients_[i], values_[i], g,
                                     values_[i + 1]});
                     },
                     [&](const DropoutLayer& layer) {
                       emit(Dropout{g, g, layer.rate, std::uint64_t(layer.layer)});
                     },
                 },
                 layers_[i]);
    }
    if (to_input && !wrote_input_gradient_)
      emit(Copy{outside(Buffer::input_gradient, network_.features()), gradients_.front()});
  }

  // The value that the derivative of layer i's activation is taken from.
  Operand kept(std::size_t i) const {
    const Activation* activation = ending_activation(layers_[i]);
    if (derivative_from_output(*activation)) return values_[i + 1];
    return std::holds_alternative<Dense>(layers_[i]) ? before_[i] : values_[i];
  }

  // Returns whether the input gradient already holds the derivative of the activation before it.
  bool dense_backward(const Dense& dense, std::size_t i, const Operand& g, bool input_gradient) {
    dense_gradients(dense, values_[i], g);
    if (!input_gradient) return false;
    MatMul product{gradients_[i], g, network_.operand(dense.layer, "kernel", parameters), false,
                   true};
    if (i == 0) {
      product.out = outside(Buffer::input_gradient, network_.features());
      wrote_input_gradient_ = true;
    } else if (const Activation* before = ending_activation(layers_[i - 1])) {
      product.activation = *before;
      if (!before->is_identity()) product.kept = kept(i - 1);
    }
    emit(product);
    return i > 0 && ending_activation(layers_[i - 1]);
  }

  void dense_gradients(const Dense& dense, const Operand& in, const Operand& g) {
    const Operand kernel = network_.operand(dense.layer, "kernel", gradients),
                  bias = network_.operand(dense.layer, "bias", gradients);
    if (!parts_) {
      keep_back(MatMul{kernel, in, g, true, false});
      penalize(dense);
      if (bias) keep_back(ColumnSum{bias, g});
      return;
    }
    auto first_part = [&](Operand operand) {
      operand.buffer = Buffer::workspace;
      operand.offset += of_parts_.offset;
      return operand;
    };
    MatMul product{first_part(kernel), in, g, true, false};
    product.parts = parts_;
    emit(product);
    if (bias) emit(ColumnSum{first_part(bias), g, parts_});
    for (Operand whole : {kernel, bias}) {
      if (!whole) continue;
      whole.cols = whole.row_stride = whole.rows * whole.row_stride;
      whole.rows = 1;
      Operand in_parts = first_part(whole);
      in_parts.rows = of_parts_.rows;
      in_parts.row_stride = parts_.stride;
      keep_back(ColumnSum{whole, in_parts, parts_});
    }
    penalize(dense);
  }

  void normalise_backward(const Normalisation& layer, std::size_t i, const Operand& g,
                          bool input_gradient) {
    const Moments& m = moments_[i];
    NormaliseBackward record{gradients_[i], g,
                             values_[i],    m.mean,
                             m.variance,    network_.operand(layer.layer, "gamma", parameters)};
    record.epsilon = layer.epsilon;
    record.by_row = layer.by_row;
    const NormaliseSums sums{m.gamma_sum, m.beta_sum,    g,           values_[i], m.mean,
                             m.variance,  layer.epsilon, layer.by_row};
    if (of_batch(layer)) {  // the input gradient takes the sums
      emit(sums);
      record.gamma_sum = m.gamma_sum;
      record.beta_sum = m.beta_sum;
    } else if (layer.affine) {
      keep_back(sums);
    }
    if (input_gradient) emit(record);
  }

  // Its value where the section tells of it, and its gradient where there are gradients.
  void penalize(const Dense& dense) {
    if (!dense.penalty) return;
    auto as_row = [&](int buffer) {  // padding is zero, which costs nothing and stays zero
      Operand kernel = network_.operand(dense.layer, "kernel", buffer);
      kernel.cols = kernel.row_stride = kernel.rows * kernel.row_stride;
      kernel.rows = 1;
      return kernel;
    };
    Penalize record{{}, {}, as_row(parameters), dense.penalty};
    if (options_.section != Section::penalty) record.gradient = as_row(gradients);
    if (options_.section != Section::backward)
      record.partial = allocate_numbers(2 * blocks_of(record.weights.cols));
    keep_back(record);
  }

  static std::int64_t blocks_of(std::int64_t elements) {
    return (elements + norm_block - 1) / norm_block;
  }

  // A row of float64 in the workspace.
  Operand allocate_numbers(std::int64_t count) {
    Operand numbers{Buffer::workspace, 0, 1, count, count, 0, DType::float64};
    numbers.offset = workspace_ * size_of(network_.dtype()) / 8;
    workspace_ += (count * 8 + 63) / 64 * 64 / size_of(network_.dtype());
    return numbers;
  }

  std::size_t first_with_parameters() const {
    std::size_t i = 0;
    while (i < layers_.size() && !learns(layers_[i])) ++i;
    return i;
  }

  void update() {
    const Update& rule = *options_.update;
    const std::int64_t n = network_.parameters();
    auto flat = [&](int buffer) { return Operand{buffer, 0, 1, n, n, n, network_.dtype()}; };
    if (rule.clip_norm != 0) {
      const Operand partial = allocate_numbers(blocks_of(n));
      emit(ClipNorm{flat(gradients), partial, rule.clip_norm});
    }
    ApplyUpdate apply{flat(parameters), flat(gradients), {}, rule};
    for (int i = 0; i < rule.moments(); ++i) apply.moment[i] = flat(moment0 + i);
    emit(apply);
    emit(EndStep{});
  }

  const Network& network_;
  const PlanOptions& options_;
  const bool keep_;  // what backward needs
  bool from_logits_ = false;
  std::vector<Layer> layers_;
  std::vector<std::int64_t> widths_;
  std::vector<Operand> values_,
      before_,                      // values_[i] goes into layer i; before_[i] into its activation
      halves_;                      // of layer i's sums, the second, where they are taken in halves
  std::vector<Operand> gradients_;  // of values_
  bool wrote_input_gradient_ = false;
  Operand target_, weight_;
  std::vector<Moments> moments_;  // of normalisations
  Lowered lowered_{std::vector<Program>(1), {}};
  BatchParts parts_;
  Operand of_parts_;
  std::vector<Record> kept_back_;
  std::int64_t workspace_ = 0;
};

}  // namespace

bool loss_includes_ending(const Network& network, int loss) {
  if (loss == cross_entropy_index) {
    if (ends_in_sigmoid(network))
      fail("cross_entropy",
           "logits or a final softmax (for a final sigmoid use binary_cross_entropy)",
           "a network that ends in a sigmoid");
    return ends_in_softmax(network);
  }
  if (loss == binary_cross_entropy_index) {
    if (ends_in_softmax(network))
      fail("binary_cross_entropy",
           "logits or a final sigmoid (for a final softmax use cross_entropy)",
           "a network that ends in a softmax");
    return ends_in_sigmoid(network);
  }
  return false;
}

Lowered lower(const Network& network, const PlanOptions& options) {
  return Lowering(network, options).lower();
}

}  // namespace fastmlp::nn
