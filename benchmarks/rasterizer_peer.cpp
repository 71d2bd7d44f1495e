// A peer of the numba rasteriser, as one would first write it in C++: serial, scalar, libm's expf, pixels out of reach
// skipped. Only `benchmarks/rasterizer.py --peer cpp` compiles it; nothing in reconlab needs a compiler.
// The formula and its constants are those of reconlab/kernels/soft_rasterize/reference.py.

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace {

struct Settings {
    float sigma, limit, near_plane, far_plane, depth_scale;
};

struct Face {
    int order[3];           // its corners anticlockwise: distances to edges are positive inside
    float x[3], y[3], z[3];
    float length[3], ux[3], uy[3];  // edge i leads from corner i to corner i + 1
    float height[3];        // 1 / (height over the edge opposite to corner i)
    int x0, x1, y0, y1;     // first and last pixel within reach
};

// What a face is at a pixel: inside or not, d²/sigma, and the nearest point of the outline.
struct Hit {
    bool inside;
    float u, dx, dy, weight[3], bary[3];
};

int first_pixel(float low, int size) {
    return static_cast<int>(std::max(std::ceil((low + 1) * size / 2 - 0.5f), 0.0f));
}

int last_pixel(float high, int size) {
    return static_cast<int>(std::min(std::floor((high + 1) * size / 2 - 0.5f), size - 1.0f));
}

bool prepare(const float* corner, const Settings& s, int height, int width, Face& face) {
    const double abx = double(corner[3]) - corner[0], aby = double(corner[4]) - corner[1];
    const double acx = double(corner[6]) - corner[0], acy = double(corner[7]) - corner[1];
    const double area2 = abx * acy - aby * acx;
    if (std::abs(area2) <= 1e-10) return false;
    const int order[3] = {0, area2 > 0 ? 1 : 2, area2 > 0 ? 2 : 1};
    for (int i = 0; i < 3; ++i) {
        face.order[i] = order[i];
        face.x[i] = corner[3 * order[i]], face.y[i] = corner[3 * order[i] + 1], face.z[i] = corner[3 * order[i] + 2];
        if (!(face.z[i] >= s.near_plane && face.z[i] <= s.far_plane)) return false;
    }
    for (int i = 0; i < 3; ++i) {
        const int j = (i + 1) % 3;
        const float dx = face.x[j] - face.x[i], dy = face.y[j] - face.y[i];
        face.length[i] = std::sqrt(dx * dx + dy * dy);
        face.ux[i] = dx / face.length[i], face.uy[i] = dy / face.length[i];
        face.height[(i + 2) % 3] = face.length[i] / std::abs(float(area2));
    }
    const float radius = std::sqrt(s.limit * s.sigma);
    face.x0 = first_pixel(std::min({face.x[0], face.x[1], face.x[2]}) - radius, width);
    face.x1 = last_pixel(std::max({face.x[0], face.x[1], face.x[2]}) + radius, width);
    face.y0 = first_pixel(std::min({face.y[0], face.y[1], face.y[2]}) - radius, height);
    face.y1 = last_pixel(std::max({face.y[0], face.y[1], face.y[2]}) + radius, height);
    return true;
}

template <bool GRADIENT>
bool meet(const Face& face, const Settings& s, float px, float py, Hit& hit) {
    float best = 1e30f;
    hit.inside = true;
    for (int i = 0; i < 3; ++i) {
        const float x = px - face.x[i], y = py - face.y[i];
        const float along = x * face.ux[i] + y * face.uy[i], across = y * face.ux[i] - x * face.uy[i];
        const float t = std::clamp(along, 0.0f, face.length[i]), beyond = along - t;
        const float d2 = across * across + beyond * beyond;
        hit.inside = hit.inside && across >= 0;
        hit.bary[(i + 2) % 3] = across * face.height[(i + 2) % 3];
        if (d2 < best) {
            best = d2;
            if (GRADIENT) {
                hit.dx = beyond * face.ux[i] - across * face.uy[i], hit.dy = beyond * face.uy[i] + across * face.ux[i];
                hit.weight[i] = 1 - t / face.length[i], hit.weight[(i + 1) % 3] = t / face.length[i];
                hit.weight[(i + 2) % 3] = 0;
            }
        }
    }
    hit.u = best / s.sigma;
    return hit.inside || hit.u < s.limit;
}

float pixel_centre(int i, int size) { return float(2 * i + 1) / size - 1; }

// (Nearest depth - depth of the pixel on the face) / depth scale, and the clipped barycentrics that give it.
float exponent(const Face& face, const Settings& s, const float* bary, float nearest, float* mix, float& depth) {
    float sum = 0, inverse = 0;
    for (int i = 0; i < 3; ++i) sum += mix[i] = std::clamp(bary[i], 0.0f, 1.0f);
    for (int i = 0; i < 3; ++i) {
        mix[i] /= sum;
        inverse += mix[i] / face.z[i];
    }
    depth = 1 / inverse;
    return (nearest - depth) / s.depth_scale;
}

template <bool SHADED>
void draw(const float* xyz, const float* shade, int64_t faces, const Settings& s, float nearest, int height, int width,
          float* through, float* top, float* weights, float* values) {
    Face face;
    Hit hit;
    for (int64_t f = 0; f < faces; ++f) {
        if (!prepare(xyz + 9 * f, s, height, width, face)) continue;
        for (int row = face.y0; row <= face.y1; ++row) {
            const float py = pixel_centre(row, height);
            for (int column = face.x0; column <= face.x1; ++column) {
                if (!meet<false>(face, s, pixel_centre(column, width), py, hit)) continue;
                const int at = row * width + column;
                const float small = std::exp(-hit.u), r = 1 / (1 + small);
                through[at] *= hit.inside ? small * r : r;
                if (!SHADED) continue;
                float mix[3], depth, value = 0;
                const float z = exponent(face, s, hit.bary, nearest, mix, depth);
                for (int i = 0; i < 3; ++i) value += mix[i] * shade[3 * f + face.order[i]];
                const float cover = hit.inside ? r : small * r;
                if (z > top[at]) {
                    const float fade = std::exp(top[at] - z);
                    top[at] = z;
                    weights[at] = weights[at] * fade + cover;
                    values[at] = values[at] * fade + cover * value;
                } else {
                    const float weight = cover * std::exp(z - top[at]);
                    weights[at] += weight;
                    values[at] += weight * value;
                }
            }
        }
    }
}

template <bool SHADED>
void gather(const float* xyz, const float* shade, int64_t faces, const Settings& s, float nearest, int height, int width,
            const float* pull, const float* share, const float* top, const float* image, float* grad,
            float* grad_shade) {
    Face face;
    Hit hit;
    for (int64_t f = 0; f < faces; ++f) {
        if (!prepare(xyz + 9 * f, s, height, width, face)) continue;
        float gx[3] = {}, gy[3] = {}, gz[3] = {}, gv[3] = {};
        for (int row = face.y0; row <= face.y1; ++row) {
            const float py = pixel_centre(row, height);
            for (int column = face.x0; column <= face.x1; ++column) {
                if (!meet<true>(face, s, pixel_centre(column, width), py, hit)) continue;
                const int at = row * width + column;
                const float small = std::exp(-hit.u), r = 1 / (1 + small);
                const float cover = hit.inside ? r : small * r, rest = hit.inside ? small * r : r;
                float g = pull[at] * cover;
                if (SHADED) {
                    float mix[3], depth, value = 0, v[3];
                    const float z = exponent(face, s, hit.bary, nearest, mix, depth);
                    for (int i = 0; i < 3; ++i) value += mix[i] * (v[i] = shade[3 * f + face.order[i]]);
                    const float q = share[at] * cover * std::exp(z - top[at]);
                    const float qd = q * (value - image[at]);
                    const float gd = -qd / s.depth_scale * depth, inner = gd * depth;
                    float sum = 0, hx = 0, hy = 0;
                    for (int i = 0; i < 3; ++i) sum += std::clamp(hit.bary[i], 0.0f, 1.0f);
                    for (int i = 0; i < 3; ++i) {
                        gv[i] += q * mix[i];
                        gz[i] += inner * mix[i] / (face.z[i] * face.z[i]);
                        if (hit.bary[i] > 0 && hit.bary[i] < 1) {
                            const float b = (q * v[i] - inner / face.z[i] - (q * value - gd)) / sum * face.height[i];
                            const int edge = (i + 1) % 3;
                            hx += b * face.uy[edge], hy -= b * face.ux[edge];
                        }
                    }
                    g += qd * rest;
                    for (int i = 0; i < 3; ++i) gx[i] += hit.bary[i] * hx, gy[i] += hit.bary[i] * hy;
                }
                g *= (hit.inside ? -2 : 2) / s.sigma;
                for (int i = 0; i < 3; ++i) gx[i] += g * hit.weight[i] * hit.dx, gy[i] += g * hit.weight[i] * hit.dy;
            }
        }
        for (int i = 0; i < 3; ++i) {
            float* out = grad + 9 * f + 3 * face.order[i];
            out[0] = gx[i], out[1] = gy[i], out[2] = gz[i];
            if (SHADED) grad_shade[3 * f + face.order[i]] = gv[i];
        }
    }
}

}  // namespace

extern "C" void peer_draw(const float* xyz, const float* shade, int64_t faces, const float* numbers, float nearest,
                          int height, int width, float* through, float* top, float* weights, float* values) {
    const Settings s{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
    if (shade) draw<true>(xyz, shade, faces, s, nearest, height, width, through, top, weights, values);
    else draw<false>(xyz, shade, faces, s, nearest, height, width, through, top, weights, values);
}

extern "C" void peer_gather(const float* xyz, const float* shade, int64_t faces, const float* numbers, float nearest,
                            int height, int width, const float* pull, const float* share, const float* top,
                            const float* image, float* grad, float* grad_shade) {
    const Settings s{numbers[0], numbers[1], numbers[2], numbers[3], numbers[4]};
    if (shade) gather<true>(xyz, shade, faces, s, nearest, height, width, pull, share, top, image, grad, grad_shade);
    else gather<false>(xyz, shade, faces, s, nearest, height, width, pull, share, top, image, grad, grad_shade);
}
