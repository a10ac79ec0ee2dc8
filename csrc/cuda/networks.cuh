// Networks that train side by side, a block of threads to each, none of which waits for another:
// what each has of its own, where that lies meanwhile, and how they stop together.
//
// A loss that is not finite stops all of them behind the record that found it. So what a network
// has is kept aside before it goes on by itself, and where one has stopped, all are put back and
// run once more, as far as that one came: the same records, so the same bits.
#pragma once

#include <cstdint>
#include <variant>

#include "cuda/execution.cuh"

namespace fastmlp::cuda {

// What each network has of a buffer; they lie one behind the other.
struct Part {
  int buffer;
  bool lasts;  // from step to step; what does not is made by each before it is read
  std::int64_t bytes;
  std::int64_t place = -1;  // in shared memory; less than 0 where steps work on it where it lies

  FASTMLP_DEVICE char* of(const Block& block) const {
    return static_cast<char*>(block.context.buffers[buffer]) + block.replica * bytes;
  }
};

// All that is each network's own in a program of whole steps; of another program, nothing.
struct Parts {
  int count = 0;
  Part part[buffer_count];

  FASTMLP_FN const Part* begin() const { return part; }
  FASTMLP_FN const Part* end() const { return part + count; }
  Part* begin() { return part; }
  Part* end() { return part + count; }
};

inline Parts own_parts(const Program& program) {
  bool begins = false, ends = false;
  std::int64_t bytes[buffer_count] = {};
  for (Record record : program.records) {
    begins |= std::holds_alternative<Gather>(record);
    ends |= std::holds_alternative<EndStep>(record);
  }
  Parts parts;
  if (!begins || !ends) return parts;
  auto take = [&](const Operand& o) {
    if (o) bytes[o.buffer] = o.batch_stride * size_of(o.dtype);
  };
  for (Record record : program.records) std::visit([&](auto& r) { r.each(take); }, record);
  bytes[step_state] = sizeof(StepState);
  for (int i = 0; i < buffer_count; ++i)
    if (bytes[i]) parts.part[parts.count++] = {i, i != gradients && i != workspace, bytes[i]};
  return parts;
}

// By all threads of a block, which have no barrier here: of two copies, one behind the other, each
// thread makes the same part.
FASTMLP_DEVICE void copy(const Block& block, void* to, const void* from, std::int64_t bytes) {
  auto* const out = static_cast<std::uint64_t*>(to);
  const auto* const in = static_cast<const std::uint64_t*>(from);
  block.each_element(bytes / 8, [&](std::int64_t i) { out[i] = in[i]; });
}

// Finds places in so much shared memory, first for what products read and write; returns how much
// is taken. All or nothing of these, since what is taken is lost to the cache that serves the rest.
inline std::int64_t place_in_shared(Parts& parts, std::int64_t room) {
  constexpr int order[] = {step_state, workspace, parameters, gradients,
                           state,      moment0,   moment1,    moment2};
  std::int64_t taken = 0;
  for (const int buffer : order)
    for (Part& part : parts) {
      if (part.buffer != buffer) continue;
      if (taken + part.bytes <= room) {
        part.place = taken;
        taken += (part.bytes + 63) / 64 * 64;
      } else if (buffer == workspace || buffer == parameters) {
        for (Part& other : parts) other.place = -1;
        return 0;
      }
    }
  return taken;
}

// Copies a network's parts to their places and has `own` lead there, as though it were the only
// network: from a place in shared memory its stride must not be taken off, since that address would
// be outside. Only the workspace is all written before it is read: of gradients the padding is not.
FASTMLP_DEVICE void move_in(Context& own, char* shared, const Parts& parts, const Block& block) {
  block.once([&] { own = block.context; });
  for (const Part& part : parts) {
    char* const from = part.of(block);
    char* const place = part.place < 0 ? from : shared + part.place;
    if (part.place >= 0 && part.buffer != workspace) copy(block, place, from, part.bytes);
    block.once([&] { own.buffers[part.buffer] = place; });
  }
  __syncthreads();
}

// Back, what anybody reads again.
FASTMLP_DEVICE void move_out(char* shared, const Parts& parts, const Block& block) {
  for (const Part& part : parts)
    if (part.place >= 0 && part.lasts) copy(block, part.of(block), shared + part.place, part.bytes);
}

// Where what lasts is kept aside, network by network, and how many records each then ran by itself.
// Nowhere where no loss is looked at, or there is no other network for it to stop.
struct Trial {
  char* kept = nullptr;
  std::int64_t* ran = nullptr;

  FASTMLP_FN explicit operator bool() const { return kept; }

  // Of each network.
  static FASTMLP_FN std::int64_t bytes(const Parts& parts) {
    std::int64_t sum = 0;
    for (const Part& part : parts)
      if (part.lasts) sum += part.bytes;
    return sum;
  }
  // Calls f(its own, as kept, bytes) for what the block's network has.
  template <class F>
  FASTMLP_DEVICE void each(const Parts& parts, const Block& block, F&& f) const {
    char* place = kept + block.replica * bytes(parts);
    for (const Part& part : parts) {
      if (!part.lasts) continue;
      f(part.of(block), place, part.bytes);
      place += part.bytes;
    }
  }
  // How many records all of them have run.
  FASTMLP_DEVICE std::int64_t together(std::int64_t replicas) const {
    std::int64_t least = ran[0];
    for (std::int64_t r = 1; r < replicas; ++r) least = ran[r] < least ? ran[r] : least;
    return least;
  }
};

}  // namespace fastmlp::cuda
