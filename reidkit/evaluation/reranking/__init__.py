"""Second looks at a ranking: k-reciprocal neighbours, Jaccard distances, query expansion."""

from reidkit.evaluation.reranking.query_expansion import augment_database, expand_query
from reidkit.evaluation.reranking.rerank import Reranked, jaccard_distance, rerank

__all__ = ["rerank", "Reranked", "jaccard_distance", "expand_query", "augment_database"]
