// A cuBLASLt that computes on the host, for tests of csrc/cuda/blas.cpp and what rests on it. It
// reads matrices by columns, as the real one does, returns the status that the real one documents
// where a call is wrong, and fills the result with NaN where the real one would fail later: at an
// address less aligned than it was told, or without the memory that its algorithm needs.
#include <cmath>
#include <cstdint>
#include <cstring>
#include <vector>

namespace {

enum Status { success = 0, invalid_value = 7, execution_failed = 13, not_supported = 15 };
enum Type { real32 = 0, real64 = 1, bfloat = 14 };
enum Compute { by32 = 68, by64 = 70, by_tf32 = 77 };

struct Layout {
  int type;
  std::uint64_t rows, cols;
  std::int64_t ld;
};
struct Product {
  int compute, scale;
  std::int32_t transpose_a = 0, transpose_b = 0;
};
struct Wishes {
  std::uint64_t workspace = 0;
  std::uint32_t alignment[4] = {256, 256, 256, 256};
};
// What an algorithm was made for: any other use of it is a mistake.
struct Algorithm {
  std::uint32_t magic, number, alignment[4];
  std::uint64_t m, n, k, unused[2];
};
struct Suggestion {
  Algorithm algorithm;
  std::size_t workspace;
  int state;
  float waves;
  int reserved[4];
};
static_assert(sizeof(Algorithm) == 64 && sizeof(Suggestion) == 96);

constexpr std::uint32_t magic = 0xB1A5;
constexpr std::size_t workspace_of_descending = 4096;

struct Shape {
  std::uint64_t m, n, k;
  bool fits;
};
Shape shape(const Product& p, const Layout& a, const Layout& b, const Layout& d) {
  const std::uint64_t m = p.transpose_a ? a.cols : a.rows, k = p.transpose_a ? a.rows : a.cols;
  const std::uint64_t k_of_b = p.transpose_b ? b.cols : b.rows, n = p.transpose_b ? b.rows : b.cols;
  return {m, n, k, k == k_of_b && d.rows == m && d.cols == n && m && n && k};
}

bool supported(const Product& p, const Layout& a, const Layout& b, const Layout& d) {
  if (a.type != b.type || d.type != p.scale) return false;
  if (p.compute == by64) return a.type == real64 && d.type == real64;
  if (p.compute == by_tf32) return a.type == real32 && d.type == real32;
  return p.compute == by32 && (a.type == real32 || a.type == bfloat) && d.type == real32;
}

double element(const Layout& layout, const void* data, bool transpose, std::uint64_t i,
               std::uint64_t j, bool cut) {
  const std::uint64_t at = transpose ? j + i * std::uint64_t(layout.ld)
                                     : i + j * std::uint64_t(layout.ld);
  if (layout.type == real64) return static_cast<const double*>(data)[at];
  std::uint32_t bits;
  if (layout.type == bfloat)
    bits = std::uint32_t(static_cast<const std::uint16_t*>(data)[at]) << 16;
  else
    std::memcpy(&bits, static_cast<const float*>(data) + at, sizeof bits);
  float x;
  if (cut && (bits & 0x7F800000u) != 0x7F800000u) bits &= ~0x1FFFu;  // tf32, at its worst
  std::memcpy(&x, &bits, sizeof x);
  return x;
}

template <class T>
void multiply(T* out, const Product& p, const Layout& of_a, const void* a, const Layout& of_b,
              const void* b, const Layout& of_d, const Shape& s, bool descending, bool poison) {
  std::vector<T> row(s.k);
  for (std::uint64_t i = 0; i < s.m; ++i) {
    for (std::uint64_t l = 0; l < s.k && !poison; ++l)
      row[l] = T(element(of_a, a, p.transpose_a, i, l, p.compute == by_tf32));
    for (std::uint64_t j = 0; j < s.n; ++j) {
      T sum = poison ? T(NAN) : T(0);
      for (std::uint64_t step = 0; step < s.k && !poison; ++step) {
        const std::uint64_t l = descending ? s.k - 1 - step : step;
        sum += row[l] * T(element(of_b, b, p.transpose_b, l, j, p.compute == by_tf32));
      }
      out[i + j * std::uint64_t(of_d.ld)] = sum;
    }
  }
}

bool starts_at(const void* data, const Layout& layout, std::uint32_t alignment) {
  const std::int64_t size = layout.type == real64 ? 8 : layout.type == bfloat ? 2 : 4;
  return reinterpret_cast<std::uintptr_t>(data) % alignment == 0 &&
         layout.ld * size % alignment == 0;
}

template <class T, class... Fields>
int make(void** to, Fields... fields) {
  *to = new T{fields...};
  return success;
}
template <class T>
int destroy(void* object) {
  delete static_cast<T*>(object);
  return success;
}
template <class T>
int set(T& to, const void* value, std::size_t bytes) {
  if (!value || bytes != sizeof to) return invalid_value;
  std::memcpy(&to, value, bytes);
  return success;
}

}  // namespace

extern "C" {

// What tests set and read: how creation and products go, of which products only some fail, the
// seconds that each of the two algorithms adds to a clock, and the products that were made.
int fake_create_status = success, fake_status = success, fake_fails_every = 0;
double* fake_clock = nullptr;
double fake_seconds[2] = {0, 0};
int fake_products = 0;

std::size_t cublasLtGetVersion() { return 130203; }

int cublasLtCreate(void** handle) {
  *handle = &fake_status;
  return fake_create_status;
}

int cublasLtMatmulDescCreate(void** product, int compute, int scale) {
  return make<Product>(product, compute, scale);
}
int cublasLtMatmulDescDestroy(void* product) { return destroy<Product>(product); }
int cublasLtMatmulDescSetAttribute(void* product, int attribute, const void* value,
                                   std::size_t bytes) {
  auto& p = *static_cast<Product*>(product);
  if (attribute == 3) return set(p.transpose_a, value, bytes);
  if (attribute == 4) return set(p.transpose_b, value, bytes);
  return invalid_value;
}

int cublasLtMatrixLayoutCreate(void** layout, int type, std::uint64_t rows, std::uint64_t cols,
                               std::int64_t ld) {
  return make<Layout>(layout, type, rows, cols, ld);
}
int cublasLtMatrixLayoutDestroy(void* layout) { return destroy<Layout>(layout); }

int cublasLtMatmulPreferenceCreate(void** wishes) { return make<Wishes>(wishes); }
int cublasLtMatmulPreferenceDestroy(void* wishes) { return destroy<Wishes>(wishes); }
int cublasLtMatmulPreferenceSetAttribute(void* wishes, int attribute, const void* value,
                                         std::size_t bytes) {
  auto& w = *static_cast<Wishes*>(wishes);
  if (attribute == 1) return set(w.workspace, value, bytes);
  if (attribute >= 5 && attribute < 9) return set(w.alignment[attribute - 5], value, bytes);
  return invalid_value;
}

int cublasLtMatmulAlgoGetHeuristic(void* handle, void* product, void* a, void* b, void* c, void* d,
                                   void* wishes, int most, Suggestion* found, int* count) {
  const auto& p = *static_cast<Product*>(product);
  const auto &of_a = *static_cast<Layout*>(a), &of_b = *static_cast<Layout*>(b),
             &of_d = *static_cast<Layout*>(d);
  const auto& w = *static_cast<Wishes*>(wishes);
  *count = 0;
  if (handle != &fake_status || most < 1 || c != d) return invalid_value;
  for (const Layout* each : {&of_a, &of_b, &of_d})
    if (each->ld < std::int64_t(each->rows)) return invalid_value;
  const Shape s = shape(p, of_a, of_b, of_d);
  if (!s.fits) return invalid_value;
  if (!supported(p, of_a, of_b, of_d)) return not_supported;
  // In ascending order; one that does not work; and in descending order, in memory of its own.
  for (std::uint32_t number : {0u, 2u, 1u}) {
    const std::size_t workspace = number == 1 ? workspace_of_descending : 0;
    if (*count == most || workspace > w.workspace) break;
    Suggestion& one = found[(*count)++];
    one = {};
    one.algorithm = {magic, number, {}, s.m, s.n, s.k, {}};
    std::memcpy(one.algorithm.alignment, w.alignment, sizeof w.alignment);
    one.workspace = workspace;
    one.state = number == 2 ? not_supported : success;
  }
  return success;
}

int cublasLtMatmul(void* handle, void* product, const void* alpha, const void* a, void* layout_a,
                   const void* b, void* layout_b, const void* beta, const void* c, void* layout_c,
                   void* d, void* layout_d, const Algorithm* way, void* workspace,
                   std::size_t bytes, void*) {
  const auto& p = *static_cast<Product*>(product);
  const auto &of_a = *static_cast<Layout*>(layout_a), &of_b = *static_cast<Layout*>(layout_b),
             &of_d = *static_cast<Layout*>(layout_d);
  const Shape s = shape(p, of_a, of_b, of_d);
  if (handle != &fake_status || !s.fits || c != d || layout_c != layout_d) return invalid_value;
  if (way->magic != magic || way->number > 1 || way->m != s.m || way->n != s.n || way->k != s.k)
    return invalid_value;
  const bool wide = p.scale == real64, descending = way->number == 1;
  auto number = [&](const void* x) {
    return wide ? *static_cast<const double*>(x) : double(*static_cast<const float*>(x));
  };
  if (number(alpha) != 1 || number(beta) != 0) return invalid_value;
  if (descending && bytes < workspace_of_descending) return invalid_value;
  ++fake_products;
  const bool fails = fake_fails_every && fake_products % fake_fails_every == 0;
  const int status = fails ? execution_failed : fake_status;
  bool poison = status != success || !starts_at(a, of_a, way->alignment[0]) ||
                !starts_at(b, of_b, way->alignment[1]) || !starts_at(d, of_d, way->alignment[3]);
  if (descending && !workspace) poison = true;
  if (bytes && workspace) std::memset(workspace, 0xFF, bytes);
  if (wide)
    multiply(static_cast<double*>(d), p, of_a, a, of_b, b, of_d, s, descending, poison);
  else
    multiply(static_cast<float*>(d), p, of_a, a, of_b, b, of_d, s, descending, poison);
  if (fake_clock) *fake_clock += fake_seconds[way->number];
  return status;
}

}  // extern "C"
