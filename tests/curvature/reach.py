"""Models of many kinds, with the outputs z and the convex loss of them written by hand.

Each function returns the variables, a function that makes all z, the loss of them, and how the
Gauss-Newton matrix is expected to be formed. All is in float64.
"""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from keras_qnewton.curvature.formation import Formation

L = keras.layers

RNG = np.random.default_rng(0)
B = 7
X = tf.constant(RNG.normal(size=(B, 2)))
OTHERS = tf.constant(RNG.normal(size=(5, 2)))
TARGETS = tf.constant(RNG.normal(size=(B, 1)))
CLASSES = RNG.integers(0, 3, B)
SEQUENCES = tf.constant(RNG.normal(size=(B, 10, 2)))
IMAGES = tf.constant(RNG.normal(size=(B, 6, 6, 2)))
VOLUMES = tf.constant(RNG.normal(size=(B, 4, 4, 4, 2)))
TOKENS = tf.constant(RNG.integers(0, 6, (B, 5)))
BITS = tf.constant((RNG.normal(size=(B, 5)) > 0).astype(float))
NOISE = tf.constant(RNG.normal(size=(B, 2)))


def reference(variables, outputs, loss):
    """JᵀCJ and C."""
    with tf.GradientTape(persistent=True) as tape:
        zs = [tf.convert_to_tensor(z) for z in outputs()]
    sizes = [int(tf.size(z)) for z in zs]
    rows = []
    for z, size in zip(zs, sizes, strict=True):
        columns = [
            np.zeros((size, np.prod(v.shape)))
            if j is None
            else tf.convert_to_tensor(j).numpy().reshape(size, -1)
            for v, j in zip(variables, tape.jacobian(z, variables), strict=True)
        ]
        rows.append(np.concatenate(columns, 1))
    flat = tf.concat([tf.reshape(z, [-1]) for z in zs], 0)
    with tf.GradientTape() as outer:
        outer.watch(flat)
        with tf.GradientTape() as inner:
            inner.watch(flat)
            pieces = tf.split(flat, sizes)
            value = loss([tf.reshape(p, z.shape) for p, z in zip(pieces, zs, strict=True)])
        slope = inner.gradient(value, flat)
    second = outer.jacobian(slope, flat)
    second = np.zeros((len(flat), len(flat))) if second is None else second.numpy()
    jacobian = np.concatenate(rows)
    return jacobian.T @ second @ jacobian, second


def net(*layers, shape=(2,)):
    return keras.Sequential([L.Input(shape), *layers])


def mlp(outputs=1):
    return net(L.Dense(4, activation="tanh"), L.Dense(outputs))


def cross_entropy(z, classes=CLASSES):
    return tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(classes, z))


def squared(z, targets=TARGETS):
    return tf.reduce_mean(tf.square(z - targets))


def classifier(*layers, x=X):
    """The parts of a problem: variables, the outputs z, φ of them, how the block is formed."""
    model = net(*layers, L.Dense(3), shape=x.shape[1:])

    def outputs():
        return [model(x, training=True)]

    return model.trainable_variables, outputs, lambda zs: cross_entropy(zs[0]), Formation.ROWS


def of_output(loss, outputs=1, how=Formation.ROWS):
    model = mlp(outputs)
    return model.trainable_variables, lambda: [model(X)], lambda zs: loss(zs[0]), how


def two_terms():
    model = mlp()
    return (
        model.trainable_variables,
        lambda: [model(X), model(OTHERS)],
        lambda zs: squared(zs[0]) + 3 * tf.reduce_mean((zs[1] - 1) ** 2),
        Formation.ROWS,
    )


def one_square():
    """The same two terms, put together before they are squared."""
    model = mlp()

    def loss(zs):
        return tf.reduce_sum(tf.square(tf.concat([(zs[0] - TARGETS) / 3, 2 * zs[1]], 0)))

    def outputs():
        return [model(X), model(OTHERS)]

    return model.trainable_variables, outputs, loss, Formation.ROWS


def two_heads():
    inputs = L.Input((2,))
    hidden = L.Dense(4, activation="tanh")(inputs)
    model = keras.Model(inputs, [L.Dense(3)(hidden), L.Dense(1)(hidden)])
    return (
        model.trainable_variables,
        lambda: model(X),
        lambda zs: cross_entropy(zs[0]) + 0.5 * squared(zs[1]),
        Formation.LAYERS,
    )


def physics_informed():
    """u_xx + u_yy = -1 inside, u = 0 on the border."""
    model = net(L.Dense(6, activation="tanh"), L.Dense(1))

    def laplacian():
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(X)
            with tf.GradientTape() as inner:
                inner.watch(X)
                u = model(X)
            slope = inner.gradient(u, X)
            along, across = slope[:, 0:1], slope[:, 1:2]
        return outer.gradient(along, X)[:, 0:1] + outer.gradient(across, X)[:, 1:2]

    return (
        model.trainable_variables,
        lambda: [laplacian(), model(OTHERS)],
        lambda zs: tf.reduce_mean((zs[0] + 1) ** 2) + tf.reduce_mean(zs[1] ** 2),
        Formation.ROWS,
    )


def variational_autoencoder():
    encoder = net(L.Dense(4, activation="tanh"), L.Dense(4), shape=(5,))
    decoder = net(L.Dense(4, activation="tanh"), L.Dense(5))

    def outputs():
        code = encoder(BITS)
        mean, log_variance = code[:, :2], code[:, 2:]
        return [code, decoder(mean + tf.exp(0.5 * log_variance) * NOISE)]

    def loss(zs):
        mean, log_variance = zs[0][:, :2], zs[0][:, 2:]
        bits = tf.nn.sigmoid_cross_entropy_with_logits(labels=BITS, logits=zs[1])
        divergence = tf.exp(log_variance) + mean**2 - 1 - log_variance
        return tf.reduce_mean(tf.reduce_sum(bits, 1) + 0.5 * tf.reduce_sum(divergence, 1))

    variables = encoder.trainable_variables + decoder.trainable_variables
    return variables, outputs, loss, Formation.LAYERS


def attention():
    inputs = L.Input((6, 4))
    h = L.LayerNormalization()(L.MultiHeadAttention(2, 2)(inputs, inputs) + inputs)
    h = L.GlobalAveragePooling1D()(L.Dense(4, activation="gelu")(h))
    model = keras.Model(inputs, L.Dense(3)(h))
    x = tf.constant(RNG.normal(size=(B, 6, 4)))

    def loss(zs):
        return cross_entropy(zs[0])

    return model.trainable_variables, lambda: [model(x)], loss, Formation.ROWS


def tied_weights():
    """A linear decoder that is the transpose of the encoder."""
    first, second = net(L.Dense(3, activation="tanh")), L.Dense(2, use_bias=False)
    second.build((None, 3))

    def outputs():
        code = tf.tanh(second(first(X)))
        return [tf.matmul(code, second.kernel.value, transpose_b=True)]

    variables = first.trainable_variables + second.trainable_variables
    return variables, outputs, lambda zs: tf.reduce_mean((zs[0] - 0.3) ** 2), Formation.ROWS


def contrastive():
    """Each example's loss looks at all others."""
    model = mlp(3)
    near = X + 0.1

    def outputs():
        return [tf.matmul(model(X), model(near), transpose_b=True)]

    def loss(zs):
        return cross_entropy(zs[0], np.arange(B))

    return model.trainable_variables, outputs, loss, Formation.COLUMNS_REFUTED


def integral():
    """A condition on the mean of all outputs."""
    model = mlp()

    def outputs():
        u = model(X)
        return [u, tf.reduce_mean(u)]

    def loss(zs):
        return squared(zs[0]) + (zs[1] - 1) ** 2

    return model.trainable_variables, outputs, loss, Formation.ROWS


def distance_of_two_networks():
    first, second = mlp(2), mlp(2)
    variables = first.trainable_variables + second.trainable_variables

    def loss(zs):
        return tf.reduce_mean(tf.math.squared_difference(*zs))

    return variables, lambda: [first(X), second(X)], loss, Formation.LAYERS


def poisson():
    """z is the rate's logarithm, which Keras's loss takes of the rate again."""
    hidden, rate = net(L.Dense(4, activation="tanh")), L.Dense(1)
    rate.build((None, 4))
    counts = tf.abs(TARGETS) * 3
    variables = hidden.trainable_variables + rate.trainable_variables

    def loss(zs):
        return keras.losses.Poisson()(counts, tf.exp(zs[0]))

    return variables, lambda: [rate(hidden(X))], loss, Formation.ROWS


def two_slices():
    """A term's argument, and another slice of the same output in which the loss is linear."""
    model = mlp(2)
    counts = tf.abs(TARGETS)[:, 0] * 3

    def loss(zs):
        (z,) = zs
        return tf.reduce_mean(tf.exp(z[:, 0]) - counts * z[:, 0] + tf.square(z[:, 1]) + 2 * z[:, 1])

    return model.trainable_variables, lambda: [model(X)], loss, Formation.ROWS


def embedded_positions():
    """Rows of two embeddings, one by what is at a place and one by the place."""
    tokens, places, last = L.Embedding(6, 3), L.Embedding(5, 3), L.Dense(3)

    def outputs():
        h = tokens(TOKENS) + places(tf.range(5))
        return [last(tf.reduce_mean(tf.tanh(h), 1))]

    outputs()
    variables = [w for layer in (tokens, places, last) for w in layer.trainable_variables]
    return variables, outputs, lambda zs: cross_entropy(zs[0]), Formation.ROWS


def joined_weights():
    """One matrix of parts of three weights and zeros, and another of the same weights."""
    shapes = [(2, 3), (3, 3), (4,)]
    weights = [tf.Variable(RNG.normal(size=shape)) for shape in shapes]

    def outputs():
        first, second, third = weights
        joined = tf.concat([first, tf.reverse(second[1:], [0]), tf.zeros([1, 3], X.dtype)], 0)
        h = tf.tanh(tf.concat([X, X**2, X[:, :1]], 1) @ joined)
        scale = tf.stack([third[:3], second[0]])
        return [tf.einsum("bi,ji->bj", h, scale) + third[3]]

    return weights, outputs, lambda zs: tf.reduce_mean((zs[0] - 0.3) ** 2), Formation.ROWS


def products_of_parts():
    """A matrix for each of several parts of an example."""
    first = tf.Variable(RNG.normal(size=(5, 2, 3)))
    last = tf.Variable(RNG.normal(size=(2, 1, 3)))

    def outputs():
        h = tf.tanh(tf.matmul(tf.reshape(SEQUENCES, [B, 5, 2, 2]), first))
        return [tf.reduce_sum(tf.matmul(h[:, :2], last, transpose_b=True), [1, 2])]

    return [first, last], outputs, squared, Formation.ROWS


def quantile(z):
    return tf.reduce_mean(tf.maximum(0.3 * (TARGETS - z), -0.7 * (TARGETS - z)))


PROBLEMS = {
    "two terms": two_terms,
    "one square": one_square,
    "two heads": two_heads,
    "physics-informed": physics_informed,
    "variational autoencoder": variational_autoencoder,
    "LSTM": lambda: classifier(L.LSTM(3), x=SEQUENCES),
    "GRU": lambda: classifier(L.GRU(3), x=SEQUENCES),
    "bidirectional": lambda: classifier(L.Bidirectional(L.SimpleRNN(3)), x=SEQUENCES),
    "attention": attention,
    "embedding": lambda: classifier(L.Embedding(6, 3), L.Flatten(), x=TOKENS),
    "convolutions": lambda: classifier(
        L.Conv2D(3, 3, activation="tanh"),
        L.Conv2D(2, 2, strides=2, padding="same"),
        L.GlobalAveragePooling2D(),
        x=IMAGES,
    ),
    "depthwise convolutions": lambda: classifier(
        L.DepthwiseConv2D(3, depth_multiplier=2, activation="tanh"),
        L.SeparableConv2D(2, 2),
        L.GlobalAveragePooling2D(),
        x=IMAGES,
    ),
    "transposed convolutions": lambda: classifier(
        L.Conv2DTranspose(3, 3, strides=2, padding="same", activation="tanh"),
        L.Conv2DTranspose(2, 2),
        L.GlobalAveragePooling2D(),
        x=IMAGES,
    ),
    "dilated convolutions": lambda: classifier(
        L.Conv2D(3, 3, dilation_rate=2, padding="same", activation="tanh"),
        L.Conv2D(2, 2, dilation_rate=2),
        L.DepthwiseConv2D(2, dilation_rate=2, activation="tanh"),
        L.GlobalAveragePooling2D(),
        x=IMAGES,
    ),
    "dilated convolutions of sequences": lambda: classifier(
        L.Conv1D(3, 2, dilation_rate=2, padding="causal", activation="tanh"),
        L.SeparableConv1D(2, 2, activation="tanh"),
        L.Conv1DTranspose(2, 2, strides=2),
        L.GlobalAveragePooling1D(),
        x=SEQUENCES,
    ),
    "convolutions of volumes": lambda: classifier(
        L.Conv3D(2, 2, activation="tanh"),
        L.Conv3D(2, 2, strides=2, padding="same"),
        L.GlobalAveragePooling3D(),
        x=VOLUMES,
    ),
    "other convolutions of volumes": lambda: classifier(
        L.Conv3D(2, 2, dilation_rate=2, activation="tanh"),
        L.Conv3DTranspose(2, 2, strides=2),
        L.GlobalAveragePooling3D(),
        x=VOLUMES,
    ),
    "Einstein sums": lambda: classifier(
        L.EinsumDense("...c,cd->...d", output_shape=3, activation="tanh"),
        L.EinsumDense("abc,bdc->ad", output_shape=2, bias_axes="d"),
        x=SEQUENCES,
    ),
    "two slices of an output": two_slices,
    "embedded positions": embedded_positions,
    "joined weights": joined_weights,
    "products of parts": products_of_parts,
    "batch normalisation": lambda: (
        *classifier(L.Dense(4), L.BatchNormalization(), L.Activation("tanh"))[:3],
        Formation.SHARED,
    ),
    "time-distributed": lambda: classifier(
        L.TimeDistributed(L.Dense(3, activation="tanh")), L.GlobalAveragePooling1D(), x=SEQUENCES
    ),
    "tied weights": tied_weights,
    "contrastive": contrastive,
    "integral": integral,
    "distance of two networks": distance_of_two_networks,
    "Huber": lambda: of_output(lambda z: keras.losses.Huber()(TARGETS, z)),
    "log cosh": lambda: of_output(lambda z: keras.losses.LogCosh()(TARGETS, z)),
    "Poisson": poisson,
    "quantile": lambda: of_output(quantile),
    "log-sum-exp": lambda: of_output(
        lambda z: tf.reduce_mean(tf.reduce_logsumexp(z, 1) - z[:, 0]), 3, Formation.LAYERS
    ),
}
