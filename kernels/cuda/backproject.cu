// volume[z, y, x] += sum over views of weight * view[y, column], linear between pixels,
// column = x_step * x + z_step * (z_start + z) + offset; nothing where it is outside. Likewise
// row = y + row_shift[view, z], where the specimen is tilted about x.
//
// Places are 32.32 fixed point: exact, the same in every slab, cheap where double is slow.
// Neighbouring threads are neighbours in x, so reads and writes coalesce in the natural layout;
// each thread keeps ROWS values of y, which share a column and the fraction of a row.

#define ROWS 8
#define EDGE 4295  // a millionth of a pixel: rounding must not put the outermost column outside

extern "C" __global__ void backproject(
    const float* __restrict__ views, float* __restrict__ volume,
    const long long* __restrict__ x_step, const long long* __restrict__ z_step,
    const long long* __restrict__ offset, const long long* __restrict__ row_shift,
    const float* __restrict__ weight,
    int n_views, int n_rows, int columns, int nz, int ny, int nx, int z_start)
{
    const int x = blockIdx.x * blockDim.x + threadIdx.x;
    const int z = blockIdx.y;
    const int y = blockIdx.z * ROWS;
    if (x >= nx) return;

    const long long last = (long long)(columns - 1) << 32;
    float sum[ROWS];
    for (int r = 0; r < ROWS; ++r) sum[r] = 0.f;

    for (int view = 0; view < n_views; ++view) {
        const long long column = x_step[view] * x + z_step[view] * (z_start + z) + offset[view];
        if (column < -EDGE || column > last + EDGE) continue;
        int i = column < 0 ? 0 : (int)(column >> 32);
        if (i > columns - 2) i = columns - 2;
        const float right = weight[view] * (float)(column - ((long long)i << 32)) * 0x1p-32f;
        const float left = weight[view] - right;
        const long long shift = row_shift[(long long)view * nz + z];
        const float share = (float)(shift & 0xffffffffLL) * 0x1p-32f;
        int row = y + (int)(shift >> 32);
        const float* pixel = views + ((long long)view * n_rows + row) * columns + i;
        if (share == 0.f) {
#pragma unroll
            for (int r = 0; r < ROWS; ++r, ++row, pixel += columns) {
                if (row >= 0 && row < n_rows) sum[r] += left * pixel[0] + right * pixel[1];
            }
        } else {
            float low = row >= 0 && row < n_rows ? left * pixel[0] + right * pixel[1] : 0.f;
#pragma unroll
            for (int r = 0; r < ROWS; ++r, ++row) {
                pixel += columns;
                const bool next = row + 1 >= 0 && row + 1 < n_rows;
                const float high = next ? left * pixel[0] + right * pixel[1] : 0.f;
                if (next && row >= 0) sum[r] += low + share * (high - low);
                low = high;
            }
        }
    }
    float* voxel = volume + ((long long)z * ny + y) * nx + x;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (y + r < ny) voxel[(long long)r * nx] += sum[r];
    }
}
