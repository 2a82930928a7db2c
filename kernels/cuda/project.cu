// view[row, column] += sum over the voxels that appear there of weight * volume[z, y, x], linear
// between pixels: the adjoint of backproject.cu, whose places and weights these are.
//
// No additions are scattered: a thread gathers, in each plane, the voxels within one column of
// its own, which are neighbours along x, for ROWS rows of the view.

#define ROWS 8
#define EDGE 4295  // as of backproject.cu

extern "C" __global__ void project(
    const float* __restrict__ volume, float* __restrict__ views,
    const long long* __restrict__ x_step, const long long* __restrict__ z_step,
    const long long* __restrict__ offset, const long long* __restrict__ row_shift,
    const float* __restrict__ weight,
    int n_rows, int columns, int nz, int ny, int nx, int z_start)
{
    const int column = blockIdx.x * blockDim.x + threadIdx.x;
    const int view = blockIdx.y;
    const int first_row = blockIdx.z * ROWS;
    if (column >= columns) return;

    const long long one = 1LL << 32;
    const long long last = (long long)(columns - 1) << 32;
    const long long step = x_step[view];
    float sum[ROWS];
    for (int r = 0; r < ROWS; ++r) sum[r] = 0.f;

    for (int z = 0; z < nz; ++z) {
        const long long plane = z_step[view] * (z_start + z) + offset[view];
        // x from low to high have places within one column.
        int low = 0, high = nx - 1;
        if (step != 0) {
            const long long here = ((long long)column << 32) - plane;
            long long a = (here - one) / step - 1, b = (here + one) / step + 1;
            if (step < 0) { a = (here + one) / step - 1; b = (here - one) / step + 1; }
            if (a > low) low = a < nx ? (int)a : nx;
            if (b < high) high = b > -1 ? (int)b : -1;
        }
        const long long shift = row_shift[(long long)view * nz + z];
        const float share = (float)(shift & 0xffffffffLL) * 0x1p-32f;
        const int whole = (int)(shift >> 32);
        // Rows y of the volume that appear in rows of the view, both of the interpolated ones.
        const int y_low = whole < 0 ? -whole : 0;
        int y_high = n_rows - (share > 0.f ? 1 : 0) - whole;
        if (y_high > ny) y_high = ny;
        for (int x = low; x <= high; ++x) {
            const long long place = step * x + plane;
            if (place < -EDGE || place > last + EDGE) continue;
            int i = place < 0 ? 0 : (int)(place >> 32);
            if (i > columns - 2) i = columns - 2;
            const float right = weight[view] * (float)(place - ((long long)i << 32)) * 0x1p-32f;
            float factor = 0.f;
            if (i == column) factor = weight[view] - right;
            else if (i + 1 == column) factor = right;
            if (factor == 0.f) continue;
            int y = first_row - whole;
            const float* voxel = volume + ((long long)z * ny + y) * nx + x;
            float before = 0.f;
            if (share > 0.f && y - 1 >= y_low && y - 1 < y_high) before = voxel[-(long long)nx];
#pragma unroll
            for (int r = 0; r < ROWS; ++r, ++y, voxel += nx) {
                const float value = y >= y_low && y < y_high ? voxel[0] : 0.f;
                sum[r] += factor * (value + share * (before - value));
                before = value;
            }
        }
    }
    float* pixel = views + ((long long)view * n_rows + first_row) * columns + column;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (first_row + r < n_rows) pixel[(long long)r * columns] += sum[r];
    }
}
