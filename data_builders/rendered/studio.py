"""Renders a morphable face off-screen with VTK, without display or GPU, and projects its landmarks.

The same person, expression and shot give the same pixels on one machine, whatever came before.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

import cv2
import numpy as np
import vtkmodules.vtkRenderingOpenGL2  # noqa: F401  (without it VTK has nothing to render with)
from numpy.typing import NDArray
from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray, vtk_to_numpy
from vtkmodules.vtkCommonCore import vtkLogger, vtkPoints
from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkImageData, vtkPolyData
from vtkmodules.vtkRenderingCore import (
    vtkActor,
    vtkLight,
    vtkPolyDataMapper,
    vtkRenderer,
    vtkRenderWindow,
    vtkTexture,
    vtkWindowToImageFilter,
)

from data_builders.rendered.looks import Light, Person, Shot
from data_builders.rendered.morphable import SKIN, MorphableFace, Points, vertex_normals
from data_builders.rendered.skin import (
    frame_around,
    hair_share,
    paint_eye,
    paint_ground,
    paint_skin,
)
from facellava.errors import MissingBackend

OVERSAMPLING: Final = 2  # rendered pixels along a pixel of the picture
HEAD: Final = "M_BackHead"
EYES: Final = ("M_ScleraRight", "M_ScleraLeft")
TEAR_DUCTS: Final = "M_LacrimalFluid"
INSIDE: Final = {
    "M_Teeth": (0.82, 0.78, 0.70),
    "M_GumsTongue": (0.50, 0.22, 0.20),
    TEAR_DUCTS: (0.62, 0.36, 0.33),
}
"""Material to sRGB. Not drawn are the irises, which lie inside the painted eyeballs, and the cards
that would carry pictures of lashes and of shade."""
WET: Final = (0.25, 1.5)  # roughness and index of refraction
SKIN_IOR: Final = 1.4
CLOTH_BELOW: Final = 6.0  # model units under the chin
NAPE: Final = 4.0  # model units over the chin
METERED: Final = 0.72  # mean of a skin colour that needs no correction
METERING: Final = 0.6
SAME_HEIGHT: Final = 0.3  # model units
BEHIND: Final = 0.4
DEEP: Final = 4.0  # model units behind the lips, where no light comes


class Studio:
    """The scene of one model; kept between pictures, because making it is slow."""

    def __init__(self, model: MorphableFace) -> None:
        self.model = model
        self.marks: Points = model.vertices[model.landmarks]
        self.renderer = vtkRenderer()
        self.renderer.SetBackground(0, 0, 0)
        self.renderer.SetBackgroundAlpha(0)
        self.renderer.SetAutomaticLightCreation(False)
        self.window = _window(self.renderer)
        self.parts = {
            name: _Part(model.triangles[model.materials[name]])
            for name in (SKIN, HEAD, *EYES, *INSIDE)
            if model.materials.get(name, np.empty(0)).size
        }
        for name, part in self.parts.items():
            self.renderer.AddActor(part.actor)
            if name in (SKIN, *EYES):
                neutral = model.vertices[part.vertices]
                part.hang_canvas(frame_around(neutral).places(neutral))
        self.frame = frame_around(model.vertices[self.parts[SKIN].vertices])
        self.cheeks = _cheeks(model, self.parts[SKIN].vertices)
        self._colour_inside()
        self.dressed: Person | None = None

    def shoot(
        self, person: Person, expression: Mapping[str, float], shot: Shot
    ) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
        """The picture (S, S, 3) uint8 RGB and the 68 points (68, 2) in its pixels."""
        points = self.model.shaped(person.weights, expression)
        marks = points[self.model.landmarks]
        right, left = marks[36:42].mean(axis=0), marks[42:48].mean(axis=0)
        middle = (right + left) / 4 + marks[[48, 54]].mean(axis=0) / 2
        posed = ((points - middle) @ rotation(shot).T).astype(np.float32)
        normals = vertex_normals(posed, self.model.triangles)
        self._dress(person, shot)
        grown = posed + normals * (self.hair * person.hair_length)[:, None]
        for part in self.parts.values():
            part.move(grown, normals)
        focal = shot.eye_distance * shot.distance / float(np.linalg.norm(left - right))
        seen = self._render(person, shot, focal)
        outline = project(posed, shot, focal)
        return _developed(seen, shot), visible_landmarks(outline, self.model, self.cheeks)

    def _dress(self, person: Person, shot: Shot) -> None:
        if self.dressed is not person:
            self.parts[SKIN].paint(paint_skin(person, self.marks, self.frame))
            eye = paint_eye(person.iris, person.painting)
            for name in EYES:
                if name in self.parts:
                    self.parts[name].paint(eye)
            self.hair = self._hair_cover(person)
            self.dressed = person
        if HEAD in self.parts:
            head = self.parts[HEAD].vertices
            under_chin = self.marks[8, 1] - self.model.vertices[head, 1]
            colours = np.broadcast_to(person.skin, (len(head), 3))
            for share, paint in (
                (self.hair[head], person.hair),
                (np.clip((under_chin - CLOTH_BELOW) / 0.3, 0, 1), shot.cloth),
            ):
                colours = colours + share[:, None] * (np.asarray(paint) - colours)
            self.parts[HEAD].colour(colours)
        for name, part in self.parts.items():
            wet = name in EYES or name in INSIDE
            part.surface(*WET) if wet else part.surface(shot.roughness, SKIN_IOR)

    def _hair_cover(self, person: Person) -> NDArray[np.float32]:
        """(V,) how far each vertex is under hair: 0 to 1."""
        cover = np.zeros(len(self.model.vertices), np.float32)
        skin = self.parts[SKIN].vertices
        width = float(self.marks[16, 0] - self.marks[0, 0])
        cover[skin] = hair_share(self.model.vertices[skin] - self.marks[27], person, width)
        if HEAD in self.parts and not person.bald:
            head = self.parts[HEAD].vertices
            over_chin = self.model.vertices[head, 1] - self.marks[8, 1]
            cover[head] = np.clip((over_chin - NAPE) / 2, 0, 1)
        return cover

    def _colour_inside(self) -> None:
        """Teeth and gums get darker with their way behind the lips; inner eye corners do not."""
        lips = float(self.marks[60:68, 2].mean())
        for name, paint in INSIDE.items():
            if name in self.parts:
                behind = lips - self.model.vertices[self.parts[name].vertices, 2]
                light = np.clip(1 - behind / DEEP, 0.06, 1)
                if name == TEAR_DUCTS:
                    light = np.ones_like(light)
                self.parts[name].colour(np.multiply.outer(light, paint))

    def _render(self, person: Person, shot: Shot, focal: float) -> NDArray[np.uint8]:
        """RGBA, (S, S, 4), oversampled and brought down."""
        self.renderer.RemoveAllLights()
        # A camera meters the face, though not all the way.
        exposure = (METERED / float(np.mean(person.skin))) ** METERING
        for light in shot.lights:
            self.renderer.AddLight(_lamp(light, exposure))
        side = shot.size * OVERSAMPLING
        self.window.SetSize(side, side)
        camera = self.renderer.GetActiveCamera()
        across, down = ((0.5 - share) * shot.size / focal * shot.distance for share in shot.centre)
        camera.SetPosition(across, -down, shot.distance)
        camera.SetFocalPoint(across, -down, 0)
        camera.SetViewUp(0, 1, 0)
        camera.SetViewAngle(math.degrees(2 * math.atan(shot.size / 2 / focal)))
        self.renderer.ResetCameraClippingRange()
        self.window.Render()
        taken = vtkWindowToImageFilter()
        taken.SetInput(self.window)
        taken.SetInputBufferTypeToRGBA()
        taken.ReadFrontBufferOff()
        taken.ShouldRerenderOff()
        taken.Update()
        pixels = vtk_to_numpy(taken.GetOutput().GetPointData().GetScalars())
        pixels = pixels.reshape(side, side, 4)[::-1]
        return np.asarray(cv2.resize(pixels, (shot.size,) * 2, interpolation=cv2.INTER_AREA))


class _Part:
    """The triangles of one material."""

    def __init__(self, triangles: NDArray[np.int32]) -> None:
        self.vertices, corners = np.unique(triangles, return_inverse=True)
        cells = vtkCellArray()
        cells.SetData(3, numpy_to_vtkIdTypeArray(corners.reshape(-1).astype(np.int64), deep=True))
        self.mesh = vtkPolyData()
        self.mesh.SetPolys(cells)
        mapper = vtkPolyDataMapper()
        mapper.SetInputData(self.mesh)
        self.actor = vtkActor()
        self.actor.SetMapper(mapper)
        look = self.actor.GetProperty()
        look.SetInterpolationToPBR()
        look.SetMetallic(0.0)

    def hang_canvas(self, places: NDArray[np.float32]) -> None:
        """Texture coordinates (N, 2) of the part's vertices, for :meth:`paint`."""
        self.mesh.GetPointData().SetTCoords(numpy_to_vtk(places, deep=True))
        self.texture = vtkTexture()
        self.texture.UseSRGBColorSpaceOn()
        self.texture.InterpolateOn()
        self.texture.MipmapOn()
        self.actor.GetProperty().SetBaseColorTexture(self.texture)

    def paint(self, canvas: NDArray[np.uint8]) -> None:
        """Canvas (H, W, 3) uint8 sRGB, its first row on top."""
        height, width = canvas.shape[:2]
        picture = vtkImageData()
        picture.SetDimensions(width, height, 1)
        pixels = np.ascontiguousarray(canvas[::-1]).reshape(-1, 3)
        picture.GetPointData().SetScalars(numpy_to_vtk(pixels, deep=True))
        self.texture.SetInputData(picture)

    def colour(self, colours: NDArray[np.floating]) -> None:
        """A colour (N, 3) sRGB in [0, 1] for each vertex of the part."""
        levels = np.clip(colours * 255 + 0.5, 0, 255).astype(np.uint8)
        self.mesh.GetPointData().SetScalars(numpy_to_vtk(levels, deep=True))

    def surface(self, roughness: float, refraction: float) -> None:
        self.actor.GetProperty().SetRoughness(roughness)
        self.actor.GetProperty().SetBaseIOR(refraction)

    def move(self, points: Points, normals: Points) -> None:
        places = vtkPoints()
        places.SetData(numpy_to_vtk(points[self.vertices], deep=True))
        self.mesh.SetPoints(places)
        self.mesh.GetPointData().SetNormals(numpy_to_vtk(normals[self.vertices], deep=True))
        self.mesh.Modified()


def rotation(shot: Shot) -> NDArray[np.float64]:
    """(3, 3) from the model's axes to the camera's, x to the right of the picture, y up."""
    yaw, pitch, roll = np.radians([shot.yaw, -shot.pitch, -shot.roll])
    turn = np.array([[np.cos(yaw), 0, np.sin(yaw)], [0, 1, 0], [-np.sin(yaw), 0, np.cos(yaw)]])
    nod = np.array(
        [[1, 0, 0], [0, np.cos(pitch), -np.sin(pitch)], [0, np.sin(pitch), np.cos(pitch)]]
    )
    tilt = np.array([[np.cos(roll), -np.sin(roll), 0], [np.sin(roll), np.cos(roll), 0], [0, 0, 1]])
    return np.asarray(tilt @ nod @ turn)


def project(points: NDArray[np.floating], shot: Shot, focal: float) -> NDArray[np.float64]:
    """Posed points (N, 3) to pixels (N, 2) of the picture, y down."""
    scale = focal / (shot.distance - points[:, 2].astype(np.float64))
    centre = np.asarray(shot.centre) * shot.size
    # The camera stands aside rather than turns, so that its centre is shifted at the face's depth.
    aside = (0.5 * shot.size - centre) / focal * shot.distance
    across = points[:, 0] - aside[0]
    up = points[:, 1] + aside[1]
    return np.stack([across * scale, -up * scale], axis=1) + shot.size / 2


def visible_landmarks(
    pixels: NDArray[np.float64], model: MorphableFace, cheeks: Mapping[int, NDArray[np.int64]]
) -> NDArray[np.float64]:
    """The 68 points (68, 2) of projected vertices (V, 2), those of the jaw on the visible outline.

    The jaw's points are not spots of the skin: where the head turns, iBUG-68 has them on the edge
    of the cheek that can be seen.
    """
    marks = pixels[model.landmarks]
    across = marks[45] - marks[36]
    for point, vertices in cheeks.items():
        outwards = pixels[vertices] @ across * (-1 if point < 8 else 1)
        marks[point] = pixels[vertices[np.argmax(outwards)]]
    return marks


def _cheeks(model: MorphableFace, skin: NDArray[np.integer]) -> dict[int, NDArray[np.int64]]:
    """Landmark of the jaw's sides to the vertices of the skin at its height, ears left out."""
    places = model.vertices[skin]
    found = {}
    for point in (*range(6), *range(11, 17)):
        own = model.vertices[model.landmarks[point]]
        near = np.abs(places[:, 1] - own[1]) < SAME_HEIGHT
        front = (places[:, 2] > own[2] - BEHIND) & (places[:, 0] * own[0] > 0)
        found[point] = np.append(skin[near & front], model.landmarks[point]).astype(np.int64)
    return found


def _window(renderer: vtkRenderer) -> vtkRenderWindow:
    # On a machine without display VTK warns that it found none, then renders without.
    before = vtkLogger.GetCurrentVerbosityCutoff()
    vtkLogger.SetStderrVerbosity(vtkLogger.VERBOSITY_ERROR)
    window = vtkRenderWindow()
    vtkLogger.SetStderrVerbosity(before)
    window.SetOffScreenRendering(True)
    window.SetMultiSamples(0)
    window.SetAlphaBitPlanes(True)
    window.AddRenderer(renderer)
    if not window.SupportsOpenGL():
        raise MissingBackend(
            "VTK cannot render on this machine; install the libraries libegl1 and libgl1-mesa-dri, "
            "or libosmesa6."
        )
    return window


def _lamp(light: Light, exposure: float) -> vtkLight:
    lamp = vtkLight()
    lamp.SetLightTypeToSceneLight()
    lamp.SetPositional(False)
    lamp.SetPosition(*light.direction)
    lamp.SetFocalPoint(0, 0, 0)
    lamp.SetColor(*light.colour)
    lamp.SetIntensity(light.strength * exposure)
    return lamp


def _developed(seen: NDArray[np.uint8], shot: Shot) -> NDArray[np.uint8]:
    """The face before its ground, as a camera would have it: blurred, with noise."""
    rng = np.random.default_rng(shot.painting)
    ground = paint_ground(shot.ground, shot.ground_colours, shot.size, shot.painting)
    share = seen[:, :, 3:].astype(np.float32) / 255
    picture = seen[:, :, :3].astype(np.float32) / 255 + ground * (1 - share)
    if shot.blur > 0.3:
        picture = cv2.GaussianBlur(picture, (0, 0), shot.blur)
    picture = np.clip(picture, 0, 1) ** np.float32(shot.gamma)
    picture += rng.normal(0, shot.noise / 255, picture.shape).astype(np.float32)
    return np.clip(picture * 255 + 0.5, 0, 255).astype(np.uint8)
