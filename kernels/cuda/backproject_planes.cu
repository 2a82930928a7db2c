// As backproject.cu, but of every view there are `planes` images, of different defocus; a voxel
// takes the image of the plane at level = level_x * x + level_z * (z_start + z) + level_offset,
// or the nearest to it (ties go down), or both around it, blended. Levels count from the view's
// own first plane. Of an image only some columns are kept; place[image] is where its column 0 would
// lie among the `width` columns kept of all.

#define ROWS 8
#define EDGE 4295  // a millionth of a pixel: rounding must not put the outermost column outside

__device__ __forceinline__ void add_image(
    float* sum, const float* __restrict__ image, float left, float right, float share,
    int row, int column, int n_rows, long long width)
{
    const float* pixel = image + row * width + column;
    if (share == 0.f) {
#pragma unroll
        for (int r = 0; r < ROWS; ++r, ++row, pixel += width) {
            if (row >= 0 && row < n_rows) sum[r] += left * pixel[0] + right * pixel[1];
        }
    } else {
        float low = row >= 0 && row < n_rows ? left * pixel[0] + right * pixel[1] : 0.f;
#pragma unroll
        for (int r = 0; r < ROWS; ++r, ++row) {
            pixel += width;
            const bool next = row + 1 >= 0 && row + 1 < n_rows;
            const float high = next ? left * pixel[0] + right * pixel[1] : 0.f;
            if (next && row >= 0) sum[r] += low + share * (high - low);
            low = high;
        }
    }
}

extern "C" __global__ void backproject_planes(
    const float* __restrict__ images, float* __restrict__ volume,
    const long long* __restrict__ x_step, const long long* __restrict__ z_step,
    const long long* __restrict__ offset, const long long* __restrict__ row_shift,
    const long long* __restrict__ level_x, const long long* __restrict__ level_z,
    const long long* __restrict__ level_offset,
    const int* __restrict__ first_image, const int* __restrict__ planes,
    const long long* __restrict__ place, const float* __restrict__ weight, long long width,
    int n_views, int n_rows, int columns, int nz, int ny, int nx, int z_start, int blend)
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
        const int row = y + (int)(shift >> 32);

        const long long top = (long long)(planes[view] - 1) << 32;
        long long level = level_x[view] * x + level_z[view] * (z_start + z) + level_offset[view];
        level = level < 0 ? 0 : (level > top ? top : level);
        const long long half = 0x80000000LL - 4295;  // TIE of kernels.backproject_planes
        int plane = (int)(blend ? level >> 32 : (level + half - 1) >> 32);
        const int image = first_image[view] + plane;
        const float above = blend ? (float)(level & 0xffffffffLL) * 0x1p-32f : 0.f;
        const float below = 1.f - above;
        add_image(sum, images + place[image], below * left, below * right, share, row, i, n_rows,
                  width);
        if (above > 0.f) {
            add_image(sum, images + place[image + 1], above * left, above * right, share, row, i,
                      n_rows, width);
        }
    }
    float* voxel = volume + ((long long)z * ny + y) * nx + x;
#pragma unroll
    for (int r = 0; r < ROWS; ++r) {
        if (y + r < ny) voxel[(long long)r * nx] += sum[r];
    }
}
