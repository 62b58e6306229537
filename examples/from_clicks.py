"""From a log of what was shown and clicked to a model: clicks are corrected for the place at which they happened."""

import shop

import gcl

products = shop.products()
log = shop.clicks(products)  # query, product_id, position, impressions, clicks
print(log[0])

prepared = gcl.prepare(products=products, pairs=log)
print(
    f"{len(prepared.pairs)} graded pairs, scores {prepared.pairs.score.min():.0f} to {prepared.pairs.score.max():.0f}"
)

small = {"model": "tiny", "trainer": "cpu", "train.batch_size": 32, "train.workers": 0, "train.max_steps": 20}
low = {"loss.score_to_weight": {"low": 0.0}}  # a product that nobody clicked has the score 0
run = gcl.train(products=products, pairs=log, run_dir="runs/clicks", **small, **low)
print(run.verdict)
