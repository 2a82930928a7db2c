// The two passes of kernels/warp.py, one thread per pixel. Displacements lie at nodes every
// `step` pixels and are linear between them; `table` holds the weights of the six source pixels as
// polynomials (kernels/gridding.py).

#define TERMS 5

__device__ __forceinline__ int mirrored(int i, int n)
{
    i %= 2 * n;
    if (i < 0) i += 2 * n;
    return i < n ? i : 2 * n - 1 - i;
}

__device__ __forceinline__ float at_pixel(
    const float* nodes, int rows, int columns, int step, int y, int x)
{
    const int last = (rows - 1) * step;
    y = y < 0 ? 0 : (y > last ? last : y);
    const int row = y / step < rows - 2 ? y / step : rows - 2;
    const int column = x / step;
    const float part_y = (float)(y - row * step) / step;
    const float part_x = (float)(x - column * step) / step;
    const float* a = nodes + (long long)row * columns + column;
    const float* b = a + columns;
    const float left = a[0] + part_y * (b[0] - a[0]);
    const float right = a[1] + part_y * (b[1] - a[1]);
    return left + part_x * (right - left);
}

__device__ __forceinline__ void pixel_weights(const float* table, float s, float* weights)
{
    const float z = s * s;
#pragma unroll
    for (int j = 0; j < 3; ++j) {
        const float* p = table + j * 2 * TERMS;
        float even = p[TERMS - 1], odd = p[2 * TERMS - 1];
#pragma unroll
        for (int k = TERMS - 2; k >= 0; --k) {
            even = p[k] + z * even;
            odd = p[TERMS + k] + z * odd;
        }
        weights[j] = even + s * odd;
        weights[5 - j] = even - s * odd;
    }
}

// buffer[y + margin, x] = image[y, x + displacement], rows from −margin on, mirrored at the edges
extern "C" __global__ void across(
    const float* __restrict__ image, const float* __restrict__ nodes,
    const float* __restrict__ table, float* __restrict__ buffer,
    int ny, int nx, int margin, int step, int rows, int columns)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = (int)blockIdx.y - margin;
    if (x >= nx) return;

    const float displacement = at_pixel(nodes, rows, columns, step, y, x);
    const float whole = floorf(displacement);
    float weights[6];
    pixel_weights(table, displacement - whole - 0.5f, weights);

    const float* line = image + (long long)mirrored(y, ny) * nx;
    const int first = x + (int)whole - 2;
    float sum = 0.f;
    for (int j = 0; j < 6; ++j) {
        const int i = first + j;
        sum += weights[j] * line[i >= 0 && i < nx ? i : mirrored(i, nx)];
    }
    buffer[(long long)blockIdx.y * nx + x] = sum;
}

// total[y, x] += buffer[y + margin + displacement, x]
extern "C" __global__ void down(
    const float* __restrict__ buffer, const float* __restrict__ nodes,
    const float* __restrict__ table, float* __restrict__ total,
    int ny, int nx, int margin, int step, int rows, int columns)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int y = blockIdx.y;
    if (x >= nx) return;

    const float displacement = at_pixel(nodes, rows, columns, step, y, x);
    const float whole = floorf(displacement);
    float weights[6];
    pixel_weights(table, displacement - whole - 0.5f, weights);

    const float* pixel = buffer + (long long)(y + margin + (int)whole - 2) * nx + x;
    float sum = 0.f;
    for (int j = 0; j < 6; ++j) sum += weights[j] * pixel[(long long)j * nx];
    total[(long long)y * nx + x] += sum;
}
