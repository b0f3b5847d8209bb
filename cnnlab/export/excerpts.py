"""Passages of the scripts that `cnnlab.export.script` writes: what other rooms do, as plain text.

Each does the same operations in the same order as its room; tests/test_script.py compares the bits.
"""

from __future__ import annotations

VIEWS = '''
def views(flat):
    """The weights and biases by name, each a part of one long vector."""
    pieces = flat.split([shape.numel() for shape in SHAPES.values()])
    return {name: piece.view(shape) for (name, shape), piece in zip(SHAPES.items(), pieces, strict=True)}
'''

BATCH = '''
def batch(step):
    """The patches of an update and their labels: an epoch uses each patch once, in an order of its own."""
    epoch, place = divmod(step - 1, {updates})
    order = torch.from_numpy(np.random.default_rng([{seed}, epoch]).permutation({patches}))
    chosen = order[{size} * place : {size} * (place + 1)]
    return x[chosen], y[chosen]
'''

QUESTION_2 = '''
def draw(shape, generator):
    """Normal with deviation sqrt(2 / (fan_in + fan_out)): the question's W_bound_2."""
    if len(shape) == 1:
        return torch.zeros(shape, dtype=torch.float64)  # biases
    area = math.prod(shape[2:])
    deviation = math.sqrt(2 / (shape[1] * area + shape[0] * area))
    return torch.randn(shape, generator=generator, dtype=torch.float64) * deviation
'''

QUESTION_6 = '''
def draw(shape, generator):
    """Normal with deviation sqrt(6 / (fan_in + fan_out)), in linear layers sqrt(2 / ..): the question's W_bound_6."""
    if len(shape) == 1:
        return torch.zeros(shape, dtype=torch.float64)  # biases
    area = math.prod(shape[2:])
    deviation = math.sqrt((6 if len(shape) > 2 else 2) / (shape[1] * area + shape[0] * area))
    return torch.randn(shape, generator=generator, dtype=torch.float64) * deviation
'''

GLOROT_UNIFORM = '''
def draw(shape, generator):
    """Uniform within plus or minus sqrt(6 / (fan_in + fan_out)) (Glorot and Bengio 2010)."""
    if len(shape) == 1:
        return torch.zeros(shape, dtype=torch.float64)  # biases
    area = math.prod(shape[2:])
    bound = math.sqrt(6 / (shape[1] * area + shape[0] * area))
    return (torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1) * bound
'''

HE_NORMAL = '''
def draw(shape, generator):
    """Normal with deviation sqrt(2 / fan_in) (He et al. 2015)."""
    if len(shape) == 1:
        return torch.zeros(shape, dtype=torch.float64)  # biases
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(2 / math.prod(shape[1:]))
'''

LECUN_NORMAL = '''
def draw(shape, generator):
    """Normal with deviation sqrt(1 / fan_in) (LeCun et al. 1998)."""
    if len(shape) == 1:
        return torch.zeros(shape, dtype=torch.float64)  # biases
    return torch.randn(shape, generator=generator, dtype=torch.float64) * math.sqrt(1 / math.prod(shape[1:]))
'''

ORTHOGONAL = '''
def draw(shape, generator):
    """Orthonormal rows or columns, whichever are fewer, of a matrix (out, rest) (Saxe et al. 2014)."""
    if len(shape) == 1:
        return torch.zeros(shape, dtype=torch.float64)  # biases
    rows, columns = shape[0], math.prod(shape[1:])
    gaussian = torch.randn(max(rows, columns), min(rows, columns), generator=generator, dtype=torch.float64)
    basis, triangle = torch.linalg.qr(gaussian)
    basis = basis * triangle.diagonal().sign()
    return (basis if rows >= columns else basis.T).reshape(shape)
'''

DRAWS = {
    "question_2": QUESTION_2,
    "question_6": QUESTION_6,
    "glorot_uniform": GLOROT_UNIFORM,
    "he_normal": HE_NORMAL,
    "lecun_normal": LECUN_NORMAL,
    "orthogonal": ORTHOGONAL,
    "lsuv": ORTHOGONAL,
}
"""Recipe.init -> the function that draws the weights of one layer."""

UNIT_VARIANCE = """
# Layer-sequential unit variance (Mishkin and Matas 2016): scale each layer's weights until its outputs vary by 1.
for place in range(len(network)):
    part, weight = network[: place + 1], f"{place}.weight"
    for _ in range(10 if weight in tensors else 0):
        settled = {name: tensors[name].float() for name, _ in part.named_parameters()}
        variance = torch.func.functional_call(part, settled, (x[:66].float(),)).var().item()
        if variance == 0 or abs(variance - 1) < 0.1:
            break
        tensors[weight] = tensors[weight] / math.sqrt(variance)
"""

LIKELIHOODS = {
    "log_softmax": "torch.log_softmax(logits, dim=-1).gather(-1, {labels}[:, None]).squeeze(-1)",
    "softmax_log": "torch.log(torch.softmax(logits, dim=-1).gather(-1, {labels}[:, None]).squeeze(-1){epsilon})",
}
"""Recipe.cost -> log p of each patch's own label."""

BY_VALUE = '''
def clip_by_value(gradient, threshold):
    """Each value brought into [-threshold, threshold] (Mikolov 2012); NaN and inf stay what they are."""
    finite = gradient.nan_to_num(0.0, 0.0, 0.0)
    return finite.clamp(-threshold, threshold) + (gradient - finite)
'''

SCALED_TO = '''
def scaled_to(rows, bound):
    """Each row scaled to a norm of at most bound (Pascanu et al. 2013), without forming the norm: it might overflow."""
    finite = rows.nan_to_num(0.0, 0.0, 0.0){widened}  # NaN and inf touch no other value
    largest = finite.abs().amax(dim=-1, keepdim=True)
    relative = torch.linalg.vector_norm(finite / torch.where(largest > 0, largest, 1), dim=-1, keepdim=True)
    too_long = largest * relative > bound
    divisor, factor = torch.where(too_long, largest, 1), torch.where(too_long, bound / relative, 1)
    {scaled}
'''

ADAPTIVE = '''
def clip_adaptively(gradient, threshold, parameters):
    """Each unit's gradient scaled to at most threshold times the norm of its weights (Brock et al. 2021)."""
    weights, clipped = views(parameters), []
    for name, part in views(gradient).items():
        rows = part.flatten(1) if part.dim() >= 2 else part.reshape(1, -1)
        largest = weights[name].reshape(rows.shape).abs().amax(dim=-1, keepdim=True)
        usable = (largest > 0) & largest.isfinite()  # the norm of weights is formed so that it does not overflow
        scaled = weights[name].reshape(rows.shape) / torch.where(usable, largest, 1)
        norms = torch.linalg.vector_norm(scaled, dim=-1, keepdim=True{wide})
        norms = torch.where(usable, largest * norms, largest).clamp(min=1e-3)
        clipped.append(scaled_to(rows, threshold * norms).flatten())
    return torch.cat(clipped)
'''

CLIP_FUNCTIONS = {"value": (BY_VALUE,), "norm": (SCALED_TO,), "adaptive": (SCALED_TO, ADAPTIVE)}
"""Knobs.clip -> the functions that it needs."""
CLIP_CALLS = {
    "value": "clip_by_value(gradient, clip_threshold)",
    "norm": "scaled_to(gradient, clip_threshold)",
    "adaptive": "clip_adaptively(gradient, clip_threshold, parameters)",
}
"""Knobs.clip -> the clipped gradient."""
